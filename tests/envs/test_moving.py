"""What people change while they watch: which thing is named, and where things are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from envs.tabletop.arm import WORKSPACE
from envs.tabletop.env import TabletopEnv
from envs.tabletop.instructions import Referent
from envs.task import find_task, make_task, offers

MakeEnv = Callable[..., TabletopEnv]


def test_a_thing_goes_on_from_where_it_was_put(make_env: MakeEnv) -> None:
    moved, free = (make_env("track", cameras=(), size=16) for _ in range(2))
    for env in (moved, free):
        env.reset(seed=4)
        env.step(np.zeros(2, np.float32))
    place = moved.movable()[1] + (0.01, -0.01, 0.0)
    moved.move_thing(1, place)
    np.testing.assert_allclose(moved.movable()[1], place)
    np.testing.assert_allclose(moved.data.body("object1").xpos, place)  # and it can be drawn there at once
    for env in (moved, free):
        env.step(np.zeros(2, np.float32))
    shift = moved.movable()[1] - free.movable()[1]
    np.testing.assert_allclose(shift, (0.01, -0.01, 0.0), atol=1e-6)
    np.testing.assert_array_equal(moved.movable()[0], free.movable()[0])


def test_a_thing_stays_where_the_hand_can_go(make_env: MakeEnv) -> None:
    env = make_env("track", cameras=(), size=16)
    env.reset(seed=4)
    env.move_thing(0, np.array([9.0, -9.0, 9.0]))
    np.testing.assert_allclose(env.movable()[0][:2], (WORKSPACE[1, 0], WORKSPACE[0, 1]))
    while not env.step(np.zeros(2, np.float32))[3]:
        assert (np.abs(env.movable()[0][:2]) <= WORKSPACE[1, :2] + 1e-9).all()


def test_what_options_mean_in_this_scene(make_env: MakeEnv) -> None:
    env = make_env("track", cameras=(), size=16)
    env.reset(seed=4)
    for index, words in enumerate(env.layout.referents):
        assert env.named({"referent": words}) == index
    there = {thing.name for thing in env.layout.objects}
    absent = next(colour for colour in ("red", "blue", "green") if f"{colour} cube" not in there)
    assert env.named({"referent": Referent(colour=absent, shape="cube")}) is None
    assert env.named({}) is None


@pytest.mark.parametrize("seed", range(4))
def test_the_cube_that_words_mean_on_the_turntables(seed: int) -> None:
    spec = find_task("catch")
    env = make_task("catch", cameras=(), size=16, labels=False)
    try:
        _, info = env.reset(seed=seed)
        named, target = offers(env, "named"), info["privileged"]["target"]
        options = spec.read(env.get_wrapper_attr("instruction"))
        assert named(options) == target
        texts, index = offers(env, "counterfactual")("train", np.random.default_rng(0))
        assert named(spec.read(texts)) == index
        place = offers(env, "movable")()[target] + (0.0, 0.0, 0.1)
        offers(env, "move_thing")(target, place)
        np.testing.assert_allclose(offers(env, "movable")()[target], place)
    finally:
        env.close()
