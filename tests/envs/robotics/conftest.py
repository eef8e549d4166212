"""Fetch's tasks, closed after each test. Without Gymnasium-Robotics, whatever needs it is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from configs.seeds import split_seed
from envs.robotics.expert import expert
from envs.robotics.specs import make as make_env

Make = Callable[..., Any]
Play = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def installed() -> None:
    """Skips the test where the package is missing."""
    pytest.importorskip("gymnasium_robotics", reason="needs Gymnasium-Robotics, which `make setup` installs")


@pytest.fixture
def make(installed: None) -> Iterator[Make]:
    """Makes tasks by our name; without cameras unless some are named, because drawing is what takes time."""
    made: list[Any] = []

    def task(name: str, **settings: Any) -> Any:
        made.append(make_env(name, **{"cameras": (), "size": 32, **settings}))
        return made[-1]

    yield task
    for env in made:
        env.close()


@pytest.fixture
def play() -> Play:
    """Runs an expert, the task's own unless another is named, on a test seed to the end, and gives the last info."""

    def run(env: Any, seed: int, act: Any = expert) -> dict[str, Any]:
        _, info = env.reset(seed=split_seed("test", seed))
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(act(env, info))
            over = terminated or truncated
        return info

    return run
