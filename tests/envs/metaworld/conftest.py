"""Meta-World's tasks, closed after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from configs.seeds import split_seed
from envs.metaworld.env import MetaWorldTask
from envs.metaworld.expert import expert
from envs.metaworld.specs import make as make_env

Make = Callable[..., MetaWorldTask]
Play = Callable[[MetaWorldTask, int], dict[str, Any]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes tasks by Meta-World's name; without cameras unless some are named, because drawing is what takes time."""
    made: list[Any] = []

    def task(name: str, **settings: Any) -> Any:
        made.append(make_env(name, **{"cameras": (), "size": 32, **settings}))
        return made[-1]

    yield task
    for env in made:
        env.close()


@pytest.fixture
def play() -> Play:
    """Runs the expert on a test seed to the episode's end, and gives the last info."""

    def run(env: MetaWorldTask, seed: int) -> dict[str, Any]:
        _, info = env.reset(seed=split_seed("test", seed))
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(expert(env, info))
            over = terminated or truncated
        return info

    return run
