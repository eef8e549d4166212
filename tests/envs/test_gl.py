import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from envs import gl

VARIABLES = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "LP_NUM_THREADS")


def run_python(code: str, **variables: str) -> dict[str, object]:
    """Runs `code` in a fresh interpreter without our variables, except those given; its last line is JSON."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


DRAW = """
    import json, os
    {first}
    from envs.gl import choose_gl_backend, current_renderer
    backend = choose_gl_backend()
    import mujoco
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><light pos='0 0 3'/><geom size='0.2' rgba='1 0 0 1'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 32, 32) as renderer:
        renderer.update_scene(data)
        brightest = int(renderer.render().max())
        name = current_renderer()
    chosen = {{key: os.environ.get(key) for key in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "LP_NUM_THREADS")}}
    print(json.dumps({{"backend": backend, "brightest": brightest, "renderer": name, **chosen}}))
"""


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what the code sets is undone too
        monkeypatch.delenv(name)
    monkeypatch.setattr(gl, "_rebind_mujoco", lambda backend: None)  # leave this process's MuJoCo alone


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The backends that work, as the test says; counts as a machine without any until it adds some."""
    working: set[str] = set()
    monkeypatch.setattr(gl, "egl_works", lambda: "egl" in working)
    monkeypatch.setattr(gl, "osmesa_works", lambda: "osmesa" in working)
    return working


@pytest.mark.parametrize("first", ["", "import mujoco"], ids=["chosen first", "mujoco first"])
def test_chosen_backend_draws(first: str) -> None:
    result = run_python(DRAW.format(first=first))
    assert result["backend"] in ("egl", "osmesa")
    assert result["MUJOCO_GL"] == result["PYOPENGL_PLATFORM"] == result["backend"]
    assert result["LP_NUM_THREADS"] == "0"
    assert result["brightest"] > 100
    assert result["renderer"]


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_explicit_backend_is_honoured_and_draws(backend: str) -> None:
    if not {"egl": gl.egl_works, "osmesa": gl.osmesa_works}[backend]():
        pytest.skip(f"{backend} is not installed here")
    result = run_python(DRAW.format(first=""), MUJOCO_GL=backend.upper(), LP_NUM_THREADS="1")
    assert (result["backend"], result["LP_NUM_THREADS"]) == (backend, "1")
    assert result["brightest"] > 100


def test_importing_gl_loads_no_graphics() -> None:
    loaded = run_python("import json, sys, envs.gl; print(json.dumps({'modules': list(sys.modules)}))")["modules"]
    assert isinstance(loaded, list)
    assert not {"mujoco", "OpenGL", "torch"} & set(loaded)


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize(("working", "expected"), [({"egl", "osmesa"}, "egl"), ({"osmesa"}, "osmesa")])
def test_egl_is_preferred_to_osmesa(works: set[str], working: set[str], expected: str) -> None:
    works |= working
    assert gl.choose_gl_backend() == expected


@pytest.mark.usefixtures("clean_environment")
def test_nothing_works_names_the_packages_in_one_line(works: set[str]) -> None:
    with pytest.raises(gl.GLUnavailableError, match=f"apt-get install -y {' '.join(gl.APT_PACKAGES)}") as error:
        gl.choose_gl_backend()
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.usefixtures("clean_environment", "works")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MUJOCO_GL": " OSMesa "}, "osmesa"),
        ({"MUJOCO_GL": "on"}, "glfw"),
        ({"MUJOCO_GL": "", "PYOPENGL_PLATFORM": "osmesa"}, "osmesa"),
    ],
)
def test_what_the_environment_asks_for_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(gl, "glfw_works", lambda: True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert gl.choose_gl_backend() == expected
    assert os.environ["MUJOCO_GL"] == expected


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MUJOCO_GL": "vulkan"}, "MUJOCO_GL=vulkan cannot draw here.*egl, osmesa, glfw"),
        ({"MUJOCO_GL": "off"}, "MUJOCO_GL=off cannot draw here"),
        ({"MUJOCO_GL": "glfw"}, "MUJOCO_GL=glfw draws in a window, which display '' does not open; unset it"),
        ({"MUJOCO_GL": "on", "DISPLAY": ":4242"}, "MUJOCO_GL=on draws in a window, which display ':4242' does not"),
        ({"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "glx"}, "contradict each other; unset PYOPENGL_PLATFORM"),
    ],
)
def test_impossible_requests_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    gl.glfw_works.cache_clear()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(gl.GLUnavailableError, match=message):
        gl.choose_gl_backend()


@pytest.mark.usefixtures("clean_environment")
def test_second_choice_is_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    first = gl.choose_gl_backend()
    monkeypatch.setattr(gl.subprocess, "run", lambda *_, **__: pytest.fail("tried the backends a second time"))
    start = time.perf_counter()
    assert gl.choose_gl_backend() == first
    assert time.perf_counter() - start < 0.05


@pytest.mark.usefixtures("clean_environment")
def test_hanging_driver_counts_as_not_working(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("gl.py", gl.PROBE_SECONDS)

    monkeypatch.setattr(gl.subprocess, "run", hang)
    assert not gl.egl_works()


def test_no_context_no_renderer() -> None:
    result = run_python(
        """
        import json
        from envs.gl import current_renderer
        try:
            current_renderer()
        except ValueError as error:
            print(json.dumps({"message": str(error)}))
        """
    )
    assert "no OpenGL context is current" in str(result["message"])


def test_setup_installs_the_packages_that_the_error_names() -> None:
    script = (Path(__file__).parents[2] / ".ci" / "setup").read_text()
    for package in gl.APT_PACKAGES:
        assert package in script
