"""How others get at the tasks: by their ids, one or many at a time, in a process that never heard of us."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.tabletop.env import TabletopEnv
from envs.tabletop.plans import EXPERTS
from envs.tabletop.tasks import TASKS
from envs.task import TASK_IDS, make_task

MakeEnv = Callable[..., TabletopEnv]


def test_registries_agree() -> None:
    assert set(TASK_IDS) == set(TASKS) == set(EXPERTS)
    for task, (env_id, entry_point) in TASK_IDS.items():
        assert TASKS[task].task == task
        assert entry_point.endswith(f":{TASKS[task].__name__}")
        assert gymnasium.spec(env_id).kwargs == {"task": task}


@pytest.mark.parametrize("env_id", [env_id for env_id, _ in TASK_IDS.values()])
def test_gymnasium_makes_it_with_no_import_of_ours(env_id: str, tmp_path: Path) -> None:
    code = f"""
import gymnasium
env = gymnasium.make("envs:{env_id}", render_mode="rgb_array")
observation, info = env.reset(seed=0)
assert observation in env.observation_space
env.step(env.action_space.sample())
print(env.spec.to_json(), env.render().shape, env.get_wrapper_attr("task_description") == observation["instruction"])
"""  # left open: leaving the program must not complain
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("(256, 256, 3) True\n")


def test_the_entry_point_registers_for_whoever_reads_it() -> None:
    (found,) = entry_points(group="gymnasium.envs", name="__root__")
    found.load()()
    assert all(env_id in gymnasium.registry for env_id, _ in TASK_IDS.values())


def test_importing_the_package_loads_no_simulator() -> None:
    code = "import sys, envs; sys.exit(bool({'mujoco', 'torch', 'OpenGL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("mode", "settings"),
    [("sync", {}), ("async", {"context": "spawn"}), ("async", {"context": "spawn", "shared_memory": False})],
)
def test_vector_environments_give_what_single_ones_give(mode: str, settings: dict[str, Any], make_env: MakeEnv) -> None:
    together = gymnasium.make_vec(
        "envs:vla/Track-v0", 2, vectorization_mode=mode, vector_kwargs=settings, cameras=("front",)
    )
    chosen = np.random.default_rng(0).uniform(-1, 1, (3, 2, 2)).astype(np.float32)  # step, environment, action
    observed = [together.reset(seed=[5, 6])[0]] + [together.step(both)[0] for both in chosen]
    described = together.call("task_description")
    together.close()
    for index, seed in enumerate((5, 6)):
        env = make_env("track", cameras=("front",))
        alone = [env.reset(seed=seed)[0]] + [env.step(both[index])[0] for both in chosen]
        assert described[index] == env.task_description
        for joint, single in zip(observed, alone, strict=True):
            assert joint["instruction"][index] == single["instruction"]
            np.testing.assert_array_equal(joint["pixels"]["front"][index], single["pixels"]["front"])
            np.testing.assert_array_equal(joint["agent_pos"][index], single["agent_pos"])


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'trakc' is unknown \(did you mean track\?\); choose one of"):
        make_task("trakc")
