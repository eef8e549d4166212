"""Steps of an episode: actions that are none or too large, and its end, after which there are no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.tabletop.env import TabletopEnv
from envs.task import find_task

MakeEnv = Callable[..., TabletopEnv]


@pytest.mark.parametrize("bad", [np.nan, np.inf, "short", "long", "table"])
def test_actions_that_are_none_are_refused_in_one_line(task: str, bad: Any, make_env: MakeEnv) -> None:
    env = make_env(task, labels="none")
    env.reset(seed=0)
    size = len(env.action_names)
    shapes = {"short": (size - 1,), "long": (size + 1,), "table": (1, size)}
    action = np.zeros(shapes[bad]) if isinstance(bad, str) else np.full(size, bad)
    with pytest.raises(ValueError, match=", ".join(env.action_names)) as caught:
        env.step(action)
    assert "\n" not in str(caught.value)
    env.step(np.zeros(size))  # and the episode goes on


def test_actions_beyond_the_bounds_count_as_the_bounds(task: str, make_env: MakeEnv) -> None:
    left, right = make_env(task), make_env(task)
    left.reset(seed=0), right.reset(seed=0)
    size = len(left.action_names)
    for _ in range(3):
        observed, clipped = left.step(np.full(size, 7.0))[0], right.step(np.ones(size))[0]
    np.testing.assert_array_equal(observed["agent_pos"], clipped["agent_pos"])


def test_stepping_outside_an_episode_is_refused(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=(), labels="none", size=16)
    with pytest.raises(ValueError, match="call reset"):
        env.step(np.zeros(len(env.action_names)))
    for name in ("layout", "success"):
        with pytest.raises(ValueError, match="call reset"):
            getattr(env, name)


def test_the_horizon_truncates(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=(), labels="none", size=16)
    _, info = env.reset(seed=0)
    still = np.zeros(len(env.action_names))
    for count in range(1, env.horizon + 1):
        *_, terminated, truncated, info = env.step(still)
        assert not terminated
        assert truncated == (count == env.horizon)
    assert not info["is_success"]
    with pytest.raises(ValueError, match="call reset"):
        env.step(still)
    env.reset()
    env.step(still)


def test_an_episode_that_is_over_cannot_go_on(task: str, make_env: MakeEnv) -> None:
    """Whether it was the task that ended it or the horizon: no reward is to be had after it."""
    env = make_env(task, cameras=(), labels="none", size=16)
    _, info = env.reset(seed=0)
    over, expert = False, find_task(task).make_expert()
    while not over:
        *_, terminated, truncated, info = env.step(expert(env, info))
        over = terminated or truncated
    assert terminated == (task == "reach")
    steps = env.step_count
    for _ in range(2):
        with pytest.raises(ValueError, match="after the episode's end; call reset") as caught:
            env.step(np.zeros(len(env.action_names)))
        assert "\n" not in str(caught.value)
    assert env.step_count == steps
    env.reset()
    env.step(np.zeros(len(env.action_names)))


def test_reach_fails_when_it_settles_on_another_object(make_env: MakeEnv) -> None:
    env, expert = make_env("reach", cameras=(), labels="none", size=16), find_task("reach").make_expert()
    for other in (1, 2, 3):
        _, info = env.reset(seed=other)
        over = False
        while not over:
            *_, terminated, truncated, info = env.step(expert.towards(env, info)[other])
            over = terminated or truncated
        assert terminated
        assert not info["is_success"]
        assert env.judge(other)  # so the control that was told this object counts as having followed its words
