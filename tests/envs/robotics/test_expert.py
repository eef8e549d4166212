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


@pytest.mark.parametrize(("name", "disturbed"), [("reach", 1), ("push", 6), ("pick-and-place", 12)])
def test_looking_ahead_leaves_no_trace(name: str, disturbed: int, make: Any) -> None:
    """The foreseen actions are those of an expert that acts from there, and the episode goes on to the bit."""
    asked, left_alone = make(name), make(name)
    rng = np.random.default_rng(0)
    infos = [env.reset(seed=1)[1] for env in (asked, left_alone)]
    foreseen = np.zeros((0, 4))
    for step in range(disturbed + 3):
        ahead = asked.foresee(expert, 3)
        assert ahead.shape == (3, 4)
        if step == disturbed:
            foreseen = ahead
        if step >= disturbed:
            np.testing.assert_array_equal(expert(left_alone, infos[1]), foreseen[step - disturbed])
        action = np.clip(ahead[0] + (step < disturbed) * rng.normal(0, 0.3, 4), -1, 1).astype(np.float32)
        infos = [env.step(action)[-1] for env in (asked, left_alone)]
    for part in ("qpos", "qvel", "mocap_pos", "qacc_warmstart", "xpos"):
        np.testing.assert_array_equal(getattr(asked.data, part), getattr(left_alone.data, part), err_msg=part)
    assert infos[0]["is_success"] == infos[1]["is_success"]
