"""The scripted experts reach their success rate, with actions that mean what the tasks say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs.seeds import split_seed
from envs.tabletop.arm import MAX_SPEED
from envs.tabletop.env import TabletopEnv
from envs.tabletop.tasks.reach import limited
from envs.task import find_task

MakeEnv = Callable[..., TabletopEnv]

SEEDS = 40
FAILURES = 1


def expert_action(task: str, secret: dict[str, Any]) -> np.ndarray:
    action: np.ndarray = find_task(task).make_expert()(None, {"privileged": secret})
    return action


@pytest.mark.parametrize("combinations", ["train", "held_out"])
def test_success_rate(task: str, combinations: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=(), labels="none", size=16)
    failed = []
    for index in range(SEEDS if combinations == "train" else SEEDS // 4):
        _, info = env.reset(seed=split_seed("test", index), options={"combinations": combinations})
        done = False
        while not done:
            action = expert_action(task, info["privileged"])
            assert action.dtype == np.float32
            assert action in env.action_space
            *_, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        if not info["is_success"]:
            failed.append(index)
    assert len(failed) <= FAILURES, f"test seeds {failed} failed"


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_doing_nothing_or_following_another_object_fails(task: str, share: float, make_env: MakeEnv) -> None:
    """Success means something: it neither comes by itself nor by half the way."""
    env = make_env(task, cameras=(), labels="none", size=16)
    succeeded = 0
    for index in range(6):
        _, info = env.reset(seed=split_seed("test", index))
        wrong = next(i for i in range(len(env.layout.objects)) if i != env.layout.target)
        done = False
        while not done:
            secret: dict[str, Any] = {**info["privileged"], "target": wrong}
            action = expert_action(task, secret) if share else np.zeros(len(env.action_names))
            *_, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        succeeded += info["is_success"]
    assert succeeded == 0


def test_limited_keeps_the_direction() -> None:
    np.testing.assert_allclose(limited(np.array([3.0, -4.0])), [0.75, -1.0])
    np.testing.assert_allclose(limited(np.array([0.3, -0.4])), [0.3, -0.4], rtol=1e-6)


def test_the_track_expert_is_velocity_plus_gain_times_gap() -> None:
    secret = {
        "target": 1,
        "positions": np.array([[0.0, 0.0, 0.0], [0.10, 0.05, 0.0]]),
        "velocities": np.array([[9.0, 9.0], [0.04, 0.0]]),
        "half_heights": np.array([0.04, 0.04]),
        "active": np.array([True, True]),
        "kinds": (None, None),
        "hand": np.array([0.10, 0.05, 0.15]),
    }
    expected = (np.array([0.04, 0.0]) + 4.0 * np.array([0.04 / 20, 0.0])) / MAX_SPEED[:2]
    np.testing.assert_allclose(expert_action("track", secret), expected, rtol=1e-6)
    experts = [find_task(task).make_expert() for task in ("track", "track_motion", "track_occlusion")]
    assert all(expert is experts[0] for expert in experts)


def test_the_reach_expert_stays_high_until_it_is_above() -> None:
    secret = {
        "target": 0,
        "positions": np.array([[0.0, 0.0, 0.04]]),
        "velocities": np.zeros((1, 2)),
        "half_heights": np.array([0.04]),
        "active": np.array([True]),
        "kinds": (None,),
        "hand": np.array([0.15, 0.0, 0.17]),
    }
    aside = expert_action("reach", secret)
    above = expert_action("reach", {**secret, "hand": np.array([0.01, 0.0, 0.17])})
    assert aside[0] < -0.9
    assert abs(aside[2]) < 0.01
    assert above[2] < -0.9
