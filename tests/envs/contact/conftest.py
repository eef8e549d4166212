"""The tasks with contact, without pictures, which take most of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from configs.seeds import split_seed
from envs.contact.base import ContactTask
from envs.rollout import Scenario, World, run
from envs.task import find_task, make_task

Make = Callable[..., Any]
Play = Callable[..., World]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes tasks by name, closed after the test."""
    made: list[Any] = []

    def task(name: str, **settings: Any) -> Any:
        made.append(make_task(name, **{"cameras": (), "size": 32, "labels": False, **settings}))
        return made[-1]

    yield task
    for env in made:
        env.close()


@pytest.fixture
def task_of() -> Callable[[Any], Any]:
    """The task inside Gymnasium's wrappers."""

    def find(env: Any) -> Any:
        while not isinstance(env, ContactTask):
            env = env.env
        return env

    return find


@pytest.fixture
def play() -> Play:
    """Runs an actor on a test seed to the end."""

    def one(env: Any, name: str, actor: Any, seed: int = 0, **options: str) -> World:
        scenario = Scenario(options=options) if options else None
        names = find_task(name).action_names
        [world] = run([env], [split_seed("test", seed)], actor, action_names=names, scenario=scenario)
        return world

    return one


@pytest.fixture
def finish() -> Callable[..., dict[str, Any]]:
    """Steps with what a function of the info says, from a test seed on, and gives the last info."""

    def steps(env: Any, act: Callable[[dict[str, Any]], np.ndarray], seed: int, **options: str) -> dict[str, Any]:
        _, info = env.reset(seed=split_seed("test", seed), options=options or None)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(act(info))
            over = terminated or truncated
        return dict(info)

    return steps
