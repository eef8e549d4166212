"""Copies of an environment, pickled ones too: the same moment, the same future, and nothing shared."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv

from envs.rendering import Renderer
from envs.tabletop.env import TabletopEnv
from envs.tabletop.scene import load_scene
from envs.task import find_task
from envs.wrappers import FlatObservation

MakeEnv = Callable[..., TabletopEnv]
Differences = Callable[[Any, Any], list[str]]
Copy = Callable[[Any], Any]

COPIES: dict[str, Copy] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "cloudpickle": lambda env: pickle.loads(cloudpickle.dumps(env)),
}
MIDDLE = 15  # control steps


@pytest.fixture(params=sorted(COPIES))
def copied(request: pytest.FixtureRequest) -> Copy:
    return COPIES[request.param]


def moves(env: TabletopEnv, count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, len(env.action_names)))


def test_a_copy_in_the_middle_of_an_episode_has_the_same_future(
    task: str, copied: Copy, make_env: MakeEnv, differences: Differences
) -> None:
    env = make_env(task, randomise=True, render_mode="rgb_array")
    env.reset(seed=5)
    for action in moves(env, MIDDLE):
        env.step(action)
    env.render()
    twin = copied(env)
    assert differences(env.privileged(), twin.privileged()) == []
    np.testing.assert_array_equal(env.render(), twin.render())
    for action in moves(env, 10):
        left, right = env.step(action), twin.step(action)
        assert differences(left, right) == []
    assert differences(env.reset(), twin.reset()) == []  # the generator, too
    assert differences(env.step(moves(env, 1)[0]), twin.step(moves(env, 1)[0])) == []
    twin.close()


def test_a_copy_shares_nothing(task: str, copied: Copy, make_env: MakeEnv, differences: Differences) -> None:
    env, alone = make_env(task), make_env(task)
    env.reset(seed=5), alone.reset(seed=5)
    twin = copied(env)
    for action in moves(env, 5):
        twin.step(-action)
    twin.reset(seed=6)
    twin.close()
    assert twin.data.model is twin.model  # and not yet another one
    for action in moves(env, 5):
        assert differences(env.step(action), alone.step(action)) == []


def test_a_copy_before_the_first_episode(task: str, copied: Copy, make_env: MakeEnv, differences: Differences) -> None:
    env = make_env(task)
    twin = copied(env)
    with pytest.raises(ValueError, match="call reset"):
        twin.step(np.zeros(len(env.action_names)))
    assert differences(env.reset(seed=1), twin.reset(seed=1)) == []
    twin.close()


@pytest.mark.parametrize("steps", [0, MIDDLE])
def test_the_expert_succeeds_in_a_copy(task: str, steps: int, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=(), labels="none", size=16)
    succeeded, expert = 0, find_task(task).make_expert()
    for seed in range(3):
        _, info = env.reset(seed=seed)
        for _ in range(steps):
            *_, info = env.step(expert(env, info))
        twin, over = copy.deepcopy(env), False
        while not over:
            *_, terminated, truncated, info = twin.step(expert(twin, info))
            over = terminated or truncated
        succeeded += info["is_success"]
        twin.close()
    assert succeeded == 3


def test_a_simulation_that_broke_down_is_as_broken_in_the_copy(make_env: MakeEnv, copied: Copy, tmp_path: Any) -> None:
    env = make_env("track", cameras=(), labels="none", size=16)
    env.reset(seed=0)
    env.data.warning.number[3] = 1
    assert not copied(env).step(np.zeros(2))[4]["stable"]


@pytest.mark.parametrize("wrap", [lambda env: env, FlatObservation, gymnasium.wrappers.RecordEpisodeStatistics])
def test_copies_of_wrapped_environments(wrap: Any, copied: Copy, differences: Differences) -> None:
    env = wrap(gymnasium.make(find_task("reach").env_id, cameras=("front",)))
    env.reset(seed=2)
    env.step(np.ones(3, np.float32))
    twin = copied(env)
    if copied is copy.copy:  # of the wrapper alone, as Python has it: both step one environment
        assert twin.unwrapped is env.unwrapped
    else:
        assert twin.unwrapped is not env.unwrapped
        for _ in range(5):
            left, right = env.step(np.ones(3, np.float32)), twin.step(np.ones(3, np.float32))
            assert differences(left[0], right[0]) == []
        twin.close()
    env.close()


def test_stable_baselines_workers_get_a_copy_that_works(make_env: MakeEnv) -> None:
    envs = [FlatObservation(make_env("track", cameras=("front",), size=32, labels="none")) for _ in range(2)]
    envs[1].reset(seed=1)  # its pictures were drawn here: the copy makes its own
    together = SubprocVecEnv([partial(lambda env: env, env) for env in envs], start_method="spawn")
    try:
        together.seed(5)
        observations = [together.reset()] + [together.step(np.ones((2, 2)))[0] for _ in range(3)]
    finally:
        together.close()
    for index, env in enumerate(envs):
        alone = [env.reset(seed=5 + index)[0]] + [env.step(np.ones(2))[0] for _ in range(3)]
        for joint, single in zip(observations, alone, strict=True):
            for key, value in single.items():
                np.testing.assert_array_equal(joint[key][index], value)


def test_a_renderer_cannot_be_copied_and_says_what_to_do() -> None:
    renderer = Renderer(load_scene(), 16)
    for copied in COPIES.values():
        with pytest.raises(TypeError, match="make one there"):
            copied(renderer)
    renderer.close()
