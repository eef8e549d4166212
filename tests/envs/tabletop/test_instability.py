"""A simulation that goes wrong ends its episode as failed and invalid, and is no demonstration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.collect import CollectConfig
from envs.tabletop.env import TabletopEnv
from envs.task import find_task
from training.collect import Demonstrator

MakeEnv = Callable[..., TabletopEnv]


def unstable_after(env: TabletopEnv, steps: int, spoil: Callable[[TabletopEnv], None]) -> None:
    """Make the simulation of this environment go wrong in the given step."""
    advance, count = env._arm.step, 0

    def step(*args: Any) -> None:
        nonlocal count
        count += 1
        if count == steps:
            spoil(env)
        advance(*args)

    env._arm.step = step


def warn(env: TabletopEnv) -> None:
    env.data.qvel[0] = 1e12


def not_a_number(env: TabletopEnv) -> None:
    env.data.qpos[1] = np.nan


@pytest.mark.parametrize("spoil", [warn, not_a_number])
def test_instability_ends_the_episode_as_failed_and_invalid(
    task: str, spoil: Callable[[TabletopEnv], None], make_env: MakeEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log file where it is
    env = make_env(task)
    env.reset(seed=0)
    unstable_after(env, 4, spoil)
    still = np.zeros(len(env.action_names))
    for _ in range(3):
        *_, info = env.step(still)
        assert info["stable"]
    observation, reward, terminated, truncated, info = env.step(still)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert not info["stable"]
    assert not info["is_success"]
    assert not env.success
    assert observation in env.observation_space
    with pytest.raises(ValueError, match="after the episode's end"):
        env.step(still)
    _, info = env.reset(seed=0)
    assert info["stable"]
    assert env.step(still)[4]["stable"]


def test_a_state_that_goes_bad_without_a_warning_counts_too(make_env: MakeEnv) -> None:
    env = make_env("track")
    env.reset(seed=0)
    advance = env._arm.step

    def step(*args: Any) -> None:
        advance(*args)
        env.data.qpos[1] = np.nan

    env._arm.step = step
    observation, *_, info = env.step(np.zeros(2))
    assert not info["stable"]
    assert observation in env.observation_space


def test_an_unstable_demonstration_is_none(make_env: MakeEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = make_env("track", cameras=("front",))
    unstable_after(env, 20, warn)
    demonstrator = Demonstrator(env, find_task("track"), CollectConfig(noise=0.0))
    assert demonstrator.demonstrate(0) is None
