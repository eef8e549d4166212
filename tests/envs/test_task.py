"""Tasks: the registry, how others add theirs, and how one is made."""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from envs import task as registry
from envs.tabletop.specs import SPECS
from envs.task import (
    MODULES,
    ActionScale,
    TaskSpec,
    all_tasks,
    expand_suites,
    find_task,
    find_tasks,
    instruction_of,
    make_task,
    register_task,
    use_task_modules,
)
from envs.task_modules import ENTRY_POINTS
from envs.workers import Pulse, run_jobs

Python = Callable[..., subprocess.CompletedProcess[str]]

FIELDS: dict[str, Any] = {
    "name": "mine",
    "env_id": "mine/Task-v0",
    "success": "it is done",
    "example": "do it",
    "horizon": 10,
    "control_hz": 5,
    "cameras": ("top",),
    "action_names": ("a",),
    "agent_pos_names": ("p",),
}


class TestRegistry:
    def test_a_task_is_known_once_it_is_registered(self, forget_tasks: None) -> None:
        spec = TaskSpec(**FIELDS)
        register_task(spec)
        register_task(TaskSpec(**FIELDS))  # the same again is no harm
        assert find_task("mine") is spec
        assert list(all_tasks())[: len(SPECS)] == list(SPECS)
        assert "mine" in all_tasks()

    def test_a_name_is_given_once(self, forget_tasks: None) -> None:
        with pytest.raises(ValueError, match=r"task 'track' is registered already, for vla/Track-v0; choose another"):
            register_task(TaskSpec(**{**FIELDS, "name": "track"}))
        assert find_task("track").env_id == "vla/Track-v0"

    @pytest.mark.parametrize("name", ["", "a b", "/a", "a/", "a//b", "../a", "a/../b", "..", "a\nb", "-a"])
    def test_a_name_is_a_path_that_leads_nowhere_else(self, name: str) -> None:
        with pytest.raises(ValueError, match="must be words of letters, digits"):
            TaskSpec(**{**FIELDS, "name": name})

    @pytest.mark.parametrize("name", ["a", "a/b", "metaworld/reach-v3", "x.y/z_1"])
    def test_good_names(self, name: str) -> None:
        assert TaskSpec(**{**FIELDS, "name": name}).name == name

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"horizon": 0}, "task 'mine': horizon 0 must be at least 1"),
            ({"expert": "module"}, "task 'mine': expert 'module' must be a text 'module:name'"),
            ({"reader": "a b:c"}, "task 'mine': reader 'a b:c' must be a text 'module:name'"),
            ({"action_names": ()}, r"action_names \[\] must be one or more names"),
            ({"agent_pos_names": ("p", "p")}, r"agent_pos_names \['p', 'p'\] must name each once"),
            ({"cameras": ()}, r"cameras \[\] must be one or more names"),
            ({"control_hz": 0}, "control_hz 0 must be a number from 0.001"),
        ],
    )
    def test_a_description_that_cannot_be_is_refused(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            TaskSpec(**{**FIELDS, **change})

    def test_a_variation_is_the_same_task_made_otherwise(self) -> None:
        spec = TaskSpec(**FIELDS, kwargs={"a": 1}, variations={"dark": False, "horizon": 10})
        assert spec.varied({}) == spec
        assert spec.varied({"dark": True}) == replace(spec, kwargs={"a": 1, "dark": True})
        longer = spec.varied({"horizon": 20})
        assert longer == replace(spec, horizon=20, kwargs={"a": 1, "horizon": 20, "max_episode_steps": 20})

    @pytest.mark.parametrize(
        ("variation", "words"),
        [
            ({"drak": True}, r"has no variation 'drak' \(did you mean dark\?\); it has dark, horizon"),
            ({"dark": 1}, "dark 1 must be of type bool"),
            ({"horizon": True}, "horizon True must be of type int"),
            ({"horizon": 0}, "horizon 0 must be at least 1"),
        ],
    )
    def test_a_variation_that_there_is_not_is_refused(self, variation: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=f"task 'mine'.*{words}"):
            TaskSpec(**FIELDS, variations={"dark": False, "horizon": 10}).varied(variation)
        with pytest.raises(ValueError, match="it has none"):
            TaskSpec(**FIELDS).varied(variation)

    def test_an_unknown_name_gets_a_hint_and_the_choices(self, foreign: Path) -> None:
        use_task_modules([str(foreign)])
        with pytest.raises(ValueError, match=r"task 'trakc' is unknown \(did you mean track\?\); choose one of") as err:
            make_task("trakc", cameras=("front",), size=16)
        assert re.search(r"track_event, .*, dots, ", str(err.value))  # a suite in place of its tasks
        assert "dots/plain" not in str(err.value)
        with pytest.raises(ValueError, match=r"did you mean dots/plain\?"):
            find_task("dots/plian")

    def test_suites_stand_for_their_tasks(self, foreign: Path) -> None:
        use_task_modules([str(foreign)])
        suite = ("dots/plain", "dots/labelled", "dots/alone")
        assert expand_suites(["dots"]) == suite
        assert find_tasks(["dots/labelled", "dots", "track"]) == ("dots/labelled", "dots/plain", "dots/alone", "track")
        assert expand_suites(["nobody's"]) == ("nobody's",)
        with pytest.raises(ValueError, match=r"did you mean dots\?"):
            find_tasks(["dost"])

    def test_a_task_without_expert_or_reader_says_so(self) -> None:
        spec = TaskSpec(**FIELDS)
        with pytest.raises(ValueError, match="task 'mine' has no expert; record demonstrations otherwise"):
            spec.make_expert()
        with pytest.raises(ValueError, match="task 'mine' reads no words of a user's; leave --instruction out"):
            spec.read("go")


class TestTheirs:
    """Tasks of other people's: named on the command line, or from packages that are installed."""

    def test_by_path_from_any_folder(self, foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(foreign.parent)
        use_task_modules(["foreign_tasks.py"])
        assert os.environ[MODULES] == str(foreign)  # workers may run elsewhere
        assert find_task("dots/plain").expert == "foreign_tasks:expert"
        assert callable(find_task("dots/plain").make_expert())
        use_task_modules([str(foreign)])
        assert os.environ[MODULES] == str(foreign)

    def test_by_name(self, foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(foreign.parent)
        use_task_modules(["foreign_tasks"])
        assert os.environ[MODULES] == "foreign_tasks"
        assert "dots/plain" in all_tasks()

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (None, "ValueError: no such file"),
            ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
            ("1 +", "SyntaxError: "),
            ("raise KeyError('x')", "KeyError: 'x'"),
        ],
    )
    def test_one_that_cannot_be_imported_is_one_line(
        self, text: str | None, words: str, tmp_path: Path, forget_tasks: None
    ) -> None:
        path = tmp_path / "broken_tasks.py"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ValueError, match=r"^--task-module .*broken_tasks\.py: ") as caught:
            use_task_modules([str(path)])
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert os.environ[MODULES] == ""

    def test_one_named_as_a_module_that_is_loaded_is_refused(self, tmp_path: Path, forget_tasks: None) -> None:
        (tmp_path / "json.py").write_text("")
        with pytest.raises(ValueError, match="a module named 'json' is loaded already; choose another file name"):
            use_task_modules([str(tmp_path / "json.py")])

    def test_worker_processes_know_them(self, foreign: Path) -> None:
        use_task_modules([str(foreign)])
        answers = list(run_jobs(deque(["dots/plain"]), _find, None, workers=1, timeout=60))
        assert answers == [("dots/plain", "foreign/Dots-v0")]

    @pytest.fixture
    def installed(self, tmp_path: Path) -> Callable[..., Path]:
        """Makes a folder of installed packages, each a module with tasks and an entry point."""

        def install(**modules: str) -> Path:
            for name, text in modules.items():
                (tmp_path / f"{name}.py").write_text(text)
                described = tmp_path / f"{name}-1.0.dist-info"
                described.mkdir()
                (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
                (described / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{name} = {name}:register\n")
            return tmp_path

        return install

    def test_from_packages_that_are_installed(
        self, installed: Callable[..., Path], tmp_path: Path, python: Python
    ) -> None:
        good = f"""
from envs.task import TaskSpec, register_task

def register():
    register_task(TaskSpec(**{FIELDS!r}))
"""
        folder = installed(good_tasks=good, broken_tasks="def register():\n    raise OSError('no\\nlicence')\n")
        code = "from vla_policy.cli import main; raise SystemExit(main(['tasks']))"
        done = python(code, tmp_path, PYTHONPATH=str(folder))
        assert done.returncode == 0, done.stderr
        assert done.stderr == "vla: tasks of 'broken_tasks:register' are left out: OSError: no licence\n"
        listed = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
        assert {*SPECS, "mine"} <= set(listed)

    def test_the_list_of_tasks_shows_theirs(self, foreign: Path, tmp_path: Path, python: Python) -> None:
        code = "import sys; from vla_policy.cli import main; raise SystemExit(main(['tasks', *sys.argv[1:]]))"
        done = python(code.replace("sys.argv[1:]", f"['--task-module', {str(foreign)!r}]"), tmp_path)
        assert done.returncode == 0, done.stderr
        assert "dots/plain" in done.stdout
        assert "foreign/Dots-v0" in done.stdout
        assert "dots, easy" in done.stdout


def _find(_pulse: Pulse, _setup: None) -> Callable[[str], str]:
    return lambda name: find_task(name).env_id


class TestMaking:
    def test_what_cannot_be_made_is_one_line(self, forget_tasks: None) -> None:
        register_task(TaskSpec(**FIELDS))
        with pytest.raises(ValueError, match=r"task 'mine': mine/Task-v0 could not be made \(\w+: ") as caught:
            make_task("mine", cameras=("top",), size=16)
        assert "\n" not in str(caught.value)

    def test_a_camera_that_is_not_there_is_named(self) -> None:
        with pytest.raises(ValueError, match="task 'track' has no camera 'top'; choose from front, wrist"):
            make_task("track", cameras=("front", "top"), size=16)

    def test_a_look_that_cannot_vary(self, foreign: Path) -> None:
        use_task_modules([str(foreign)])
        with pytest.raises(ValueError, match=r"task 'dots/plain' cannot vary its look; leave collect\.randomise at"):
            make_task("dots/plain", cameras=("top",), size=16, randomise=True)

    def test_keywords_are_given_to_tasks_that_take_them(self, foreign: Path) -> None:
        use_task_modules([str(foreign)])
        theirs: Any = make_task("dots/labelled", cameras=("side",), size=24, labels=False).unwrapped
        assert (theirs.cameras, theirs.size, theirs.labelled) == (("side",), 24, True)
        for labels, expected in ((True, "boxes"), (False, "none")):
            env = make_task("track", cameras=("wrist",), size=16, labels=labels, randomise=labels)
            ours: Any = env.unwrapped
            assert (ours.cameras, ours.size, ours.labels, ours.randomise) == (("wrist",), 16, expected, labels)
            env.close()


def test_the_instruction_is_in_the_observation_or_beside_it(foreign: Path) -> None:
    use_task_modules([str(foreign)])
    env: Any = make_task("dots/plain", cameras=("top",), size=32)
    seen, _ = env.reset(seed=0)
    assert instruction_of(env, seen) == env.unwrapped.task_description
    assert instruction_of(env, {**seen, "instruction": "go home"}) == "go home"
    for nothing in ("", "  ", None):
        env.unwrapped.task_description = nothing
        with pytest.raises(ValueError, match="foreign/Dots-v0 gives no instruction: neither observation"):
            instruction_of(env, seen)


class TestActionScale:
    def test_it_changes_nothing_where_actions_lie_in_minus_1_to_1(self) -> None:
        scale = ActionScale(spaces.Box(-1, 1, (3,), np.float32))
        action = np.random.default_rng(0).uniform(-1, 1, (1000, 3)).astype(np.float32)
        np.testing.assert_array_equal(scale.to_task(action), action)
        np.testing.assert_array_equal(scale.to_unit(action), action)
        assert scale.to_task(action).dtype == scale.to_unit(action).dtype == np.float32

    def test_other_bounds_are_reached_and_kept(self) -> None:
        space = spaces.Box(np.array([-2, 0, 10], np.float32), np.array([3, 0.1, 30], np.float32))
        scale = ActionScale(space)
        np.testing.assert_array_equal(scale.to_task(np.full(3, -1.0)), space.low)
        np.testing.assert_allclose(scale.to_task(np.full(3, 1.0)), space.high, rtol=1e-6)
        np.testing.assert_allclose(scale.to_task(np.zeros(3)), [0.5, 0.05, 20], rtol=1e-6)
        units = np.random.default_rng(0).uniform(-1, 1, (1000, 3)).astype(np.float32)
        there = scale.to_task(units)
        assert all(space.contains(action) for action in there)
        np.testing.assert_allclose(scale.to_unit(there), units, atol=1e-5)

    def test_what_lies_outside_is_cut(self) -> None:
        scale = ActionScale(spaces.Box(-2, 3, (2,), np.float32))
        np.testing.assert_array_equal(scale.to_task(np.array([-7.0, 7.0])), [-2, 3])
        np.testing.assert_array_equal(scale.to_unit(np.array([-7.0, 7.0])), [-1, 1])


def test_importing_the_package_loads_no_simulator(tmp_path: Path, python: Python) -> None:
    code = "import sys, envs; sys.exit(bool({'mujoco', 'torch', 'OpenGL'} & set(sys.modules)))"
    assert python(code, tmp_path).returncode == 0


def test_a_module_that_went_missing_is_told(forget_tasks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODULES, "/nowhere/tasks.py")
    with pytest.raises(ValueError, match=r"VLA_TASK_MODULES /nowhere/tasks\.py: ValueError: no such file"):
        registry.all_tasks()


def test_a_task_names_the_versions_of_what_it_rests_on() -> None:
    spec = find_task("metaworld/reach")
    assert spec.versions() == {name: version(name) for name in ("mujoco", "gymnasium", "numpy", "metaworld")}
    assert replace(spec, packages=("nobodys-own",)).versions()["nobodys-own"] == "unknown"
    with pytest.raises(ValueError, match="packages is a text, expected several in a tuple"):
        replace(spec, packages="metaworld")
