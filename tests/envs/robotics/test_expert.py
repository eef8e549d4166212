"""The experts keep to their success rate, without and with noise. Nothing is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from configs.seeds import split_seed
from envs.actors import ExpertActor, NoisyExpert
from envs.robotics.expert import expert
from envs.robotics.specs import HORIZON, SPECS
from envs.rollout import World, run
from envs.task import make_task

EPISODES = 50


@pytest.fixture(params=sorted(SPECS))
def played(request: pytest.FixtureRequest, installed: None) -> Iterator[Any]:
    """Runs an actor on the first test seeds of each task in turn."""
    spec = SPECS[request.param]
    env = make_task(spec.name, cameras=(), size=32, labels=False)

    def play(actor: Any) -> list[World]:
        seeds = (split_seed("test", index) for index in range(EPISODES))
        return [run([env], [seed], actor, action_names=spec.action_names)[0] for seed in seeds]

    yield play
    env.close()


@pytest.mark.parametrize(("noise", "least"), [(0.0, 49), (0.2, 46)])
def test_they_succeed(noise: float, least: int, played: Any) -> None:
    worlds = played(NoisyExpert(expert, noise, 0.0) if noise else ExpertActor(expert))
    done = [world for world in worlds if world.info["is_success"]]
    assert len(done) >= least
    if not noise:
        assert max(world.step for world in done) < HORIZON / 2


def test_actions_are_cut_before_anybody_sees_them(make: Any) -> None:
    env = make("pick-and-place")
    _, info = env.reset(seed=0)
    action = expert(env, info)
    assert action.dtype == np.float32
    assert np.abs(action).max() == 1
