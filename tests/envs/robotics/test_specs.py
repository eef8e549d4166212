"""Three tasks in the registry, whether Gymnasium-Robotics is installed or not."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from envs.contract import check_contract
from envs.robotics.env import FetchTask
from envs.robotics.fetch import VERSION
from envs.robotics.specs import CONTROL_HZ, HORIZON, SPECS, TASKS
from envs.task import find_task, find_tasks, make_task, offers

ROOT = Path(__file__).parents[3]


def test_a_suite_stands_for_all() -> None:
    assert find_tasks(["robotics/fetch"]) == tuple(spec.name for spec in SPECS.values())
    assert set(find_tasks(["robotics/fetch"])) == {f"robotics/fetch-{name}" for name in TASKS}


def test_registering_them_loads_neither_the_package_nor_a_simulator() -> None:
    code = (
        "import sys, envs.task; envs.task.all_tasks(); "
        "sys.exit(bool({'gymnasium_robotics', 'mujoco'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("missing", ["gymnasium_robotics", "pettingzoo"])
def test_without_it_they_are_listed_and_making_one_says_what_to_install(missing: str, tmp_path: Path) -> None:
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('none', name={missing!r})")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from envs.task import all_tasks, make_task
print([name for name in all_tasks() if name.startswith("robotics/")])
make_task("robotics/fetch-reach", cameras=("left",), size=32)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("robotics/fetch-") == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError: task 'robotics/fetch-reach':")
    assert f"pip install gymnasium-robotics=={VERSION}" in last


def test_everybody_names_the_same_version() -> None:
    for file in ("pyproject.toml", "requirements.lock", "docs/robotics.md"):
        assert set(re.findall(r"gymnasium-robotics==([\d.]+\d)", (ROOT / file).read_text())) == {VERSION}, file


@pytest.mark.parametrize("name", sorted(SPECS))
def test_descriptions_are_right(name: str, installed: None) -> None:
    spec = find_task(f"robotics/fetch-{name}")
    env = make_task(spec.name, cameras=spec.cameras, size=32)
    check_contract(env, spec, spec.cameras, 32)
    assert env.metadata["render_fps"] == CONTROL_HZ == round(1 / env.unwrapped.dt)  # type: ignore[attr-defined]
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (4,))
    assert spec.tolerance == env.unwrapped.distance_threshold  # type: ignore[attr-defined]
    assert (offers(env, "counterfactual") is None) == (offers(env, "judge") is None) == (name == "reach")
    env.close()


def test_they_are_those_of_gymnasium_robotics(installed: None) -> None:
    importlib.import_module("gymnasium_robotics")  # registers them
    for name, (registered, _) in TASKS.items():
        theirs = gymnasium.spec(registered)
        env = make_task(f"robotics/fetch-{name}", cameras=(), size=32, labels=False)
        assert theirs.entry_point == f"{type(env.unwrapped).__module__}:{type(env.unwrapped).__name__}"
        assert theirs.max_episode_steps == HORIZON
        env.close()


def test_gymnasium_makes_them_too(installed: None) -> None:
    env = gymnasium.make("envs:robotics/FetchPush-v4", cameras=(), disable_env_checker=True)
    assert isinstance(env.env.env, FetchTask)  # type: ignore[attr-defined]
    env.close()
