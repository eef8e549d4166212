"""The tasks on the table are what their descriptions say, and Gymnasium makes them, one or many at once."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.contract import check_contract
from envs.tabletop.arm import AGENT_POS_NAMES
from envs.tabletop.env import TabletopEnv
from envs.tabletop.scene import CAMERAS, CONTROL_HZ
from envs.tabletop.specs import SPECS
from envs.task import find_task, make_task, offers

MakeEnv = Callable[..., TabletopEnv]
Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("name", SPECS)
def test_the_description_is_what_the_environment_says(name: str) -> None:
    spec, kind = SPECS[name]
    module, _, class_name = kind.partition(":")
    made: Any = getattr(importlib.import_module(module), class_name)
    env = make_task(name, cameras=spec.cameras, size=16)
    try:
        check_contract(env, spec, spec.cameras, 16)
        bare: Any = env.unwrapped
        assert type(bare) is made
        assert spec.name == bare.task
        assert spec.horizon == bare.horizon
        assert env.spec is not None
        assert env.spec.max_episode_steps == spec.horizon
        assert spec.control_hz == CONTROL_HZ == env.metadata["render_fps"]
        assert spec.cameras == CAMERAS
        assert spec.action_names == bare.action_names
        assert env.action_space.shape == (len(spec.action_names),)
        assert spec.agent_pos_names == AGENT_POS_NAMES
        for part in (
            "counterfactual",
            "judge",
            "instructions",
            "reset_options",
            "target_name",
            "tracking_errors",
            "judged_errors",
            "diagnosis",
            "picture",
            "in_picture",
            "task_description",
        ):
            assert offers(env, part) is not None, part
    finally:
        env.close()


@pytest.mark.parametrize("name", SPECS)
def test_the_example_can_be_read_and_the_expert_plans(name: str) -> None:
    spec = find_task(name)
    assert set(spec.read(spec.example)) == {"referent"}
    expert = spec.make_expert()
    assert callable(expert)
    assert expert.action_names == spec.action_names
    with pytest.raises(ValueError, match=r"\w"):
        spec.read("make me a sandwich")


@pytest.mark.parametrize("env_id", [spec.env_id for spec, _ in SPECS.values()])
def test_gymnasium_makes_it_with_no_import_of_ours(env_id: str, tmp_path: Path, python: Python) -> None:
    code = f"""
import gymnasium
env = gymnasium.make("envs:{env_id}", render_mode="rgb_array")
observation, info = env.reset(seed=0)
assert observation in env.observation_space
env.step(env.action_space.sample())
print(env.spec.to_json(), env.render().shape, env.get_wrapper_attr("task_description") == observation["instruction"])
"""  # left open: leaving the program must not complain
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("(256, 256, 3) True\n")


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("env_id", [spec.env_id for spec, _ in SPECS.values()])
def test_many_at_once(env_id: str, mode: str) -> None:
    settings = {"context": "spawn"} if mode == "async" else {}
    envs = gymnasium.make_vec(
        f"envs:{env_id}",
        num_envs=4,
        vectorization_mode=mode,
        vector_kwargs=settings,
        cameras=("front",),
        size=16,
    )
    try:
        observation, _ = envs.reset(seed=0)
        envs.action_space.seed(0)
        for _ in range(3):
            assert observation["pixels"]["front"].shape == (4, 16, 16, 3)
            assert len(set(observation["instruction"])) > 1
            observation, _, _, _, info = envs.step(envs.action_space.sample())
            assert info["is_success"].shape == (4,)
            assert info["privileged"]["boxes"]["front"].shape[0] == 4
    finally:
        envs.close()


@pytest.mark.parametrize("settings", [{}, {"shared_memory": False}], ids=["shared memory", "pipes"])
def test_vector_environments_give_what_single_ones_give(settings: dict[str, Any], make_env: MakeEnv) -> None:
    together = gymnasium.make_vec(
        "envs:vla/Track-v0",
        2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn", **settings},
        cameras=("front",),
        size=32,
    )
    chosen = np.random.default_rng(0).uniform(-1, 1, (3, 2, 2)).astype(np.float32)  # step, environment, action
    observed = [together.reset(seed=[5, 6])[0]] + [together.step(both)[0] for both in chosen]
    described = together.call("task_description")
    together.close()
    for index, seed in enumerate((5, 6)):
        env = make_env("track", cameras=("front",), size=32)
        alone = [env.reset(seed=seed)[0]] + [env.step(both[index])[0] for both in chosen]
        assert described[index] == env.task_description
        for joint, single in zip(observed, alone, strict=True):
            assert joint["instruction"][index] == single["instruction"]
            np.testing.assert_array_equal(joint["pixels"]["front"][index], single["pixels"]["front"])
            np.testing.assert_array_equal(joint["agent_pos"][index], single["agent_pos"])
