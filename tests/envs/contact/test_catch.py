"""`catch`: tables that turn as the words say, and things that go along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.actors import ExpertActor
from envs.contact.catch import CUBES, FASTER, HOLD, MOTIONS, OPPOSITE, expert, read
from envs.guessing import guess_task


@pytest.fixture
def env(make: Any) -> Any:
    return make("catch")


def still(env: Any) -> np.ndarray:
    return np.zeros(env.action_space.shape, np.float32)


def test_cubes_go_round_with_their_table(env: Any, task_of: Callable[[Any], Any]) -> None:
    for seed in range(4):
        env.reset(seed=seed)
        task = task_of(env)
        there = np.flatnonzero(task.present())
        middles = np.repeat(np.array(task.turntables), 2, axis=0)[there]
        start = task.table.props.bodies[there, :2] - middles
        for _ in range(40):  # 2 s
            env.step(still(env))
        now = task.table.props.bodies[there, :2] - middles
        np.testing.assert_allclose(np.linalg.norm(now, axis=1), np.linalg.norm(start, axis=1), atol=2e-3)
        turned = np.angle((now @ [1, 1j]) / (start @ [1, 1j]))
        expected = np.angle(np.exp(2j * task._rates[there // 2]))
        np.testing.assert_allclose(turned, expected, atol=0.05)


@pytest.mark.parametrize("motion", sorted(MOTIONS))
def test_words_about_motion_single_one_out(env: Any, motion: str, task_of: Callable[[Any], Any]) -> None:
    for seed in range(10):
        env.reset(seed=seed, options={"motion": motion})
        task = task_of(env)
        assert task.colours[task.target ^ 1] is None
        mine, other = task._rates[task.target // 2], task._rates[1 - task.target // 2]
        assert {
            "clockwise": mine < 0 < other,
            "counterclockwise": other < 0 < mine,
            "fastest": abs(mine) > FASTER * abs(other),
            "slowest": abs(other) > FASTER * abs(mine),
        }[motion]
        assert not any(colour in task.instruction for colour in task.colours if colour)
        assert task.present().sum() == 2  # one on each table: the picture does not say which is meant
        words, _ = task.counterfactual("train", np.random.default_rng(seed))
        assert OPPOSITE[motion] in words


def test_success_is_a_cube_held_in_the_air(env: Any, play: Any, task_of: Callable[[Any], Any]) -> None:
    play(env, "catch", ExpertActor(expert), 1)
    task = task_of(env)
    assert task._held[task.target] == HOLD
    assert task.table.props.touching()[task.target].all()
    assert not np.delete(task._held, task.target).any()


def test_standing_still_over_where_it_was_misses_it(env: Any, finish: Any) -> None:
    caught = 0
    for seed in range(5):  # it may come round again
        frozen: dict[str, Any] = {}

        def blind(info: dict[str, Any], frozen: dict[str, Any] = frozen) -> np.ndarray:
            known = info["privileged"]
            frozen.setdefault("bodies", known["bodies"])
            old = {**known, **frozen, "velocities": np.zeros((CUBES, 3)), "turning": np.zeros(CUBES)}
            return expert(env, {"privileged": old})

        caught += finish(env, blind, seed, motion="fastest")["is_success"]
    assert caught <= 1


def test_a_users_words_are_read(env: Any, task_of: Callable[[Any], Any]) -> None:
    assert read("grab the purple cube") == {"colour": "purple"}
    assert read("catch the red one") == {"colour": "red"}
    assert read("catch the one going clockwise") == {"motion": "clockwise"}
    for text in ("counter-clockwise", "anticlockwise", "counterclockwise"):
        assert read(f"catch the one going {text}") == {"motion": "counterclockwise"}
    env.reset(seed=2, options=read("catch the fastest block"))
    assert task_of(env).target_name.endswith("cube (fastest)")
    env.reset(seed=2, options=read("grab the purple cube"))
    assert task_of(env).target_name == "purple cube"
    assert guess_task("grab the slowest cube", ("reach", "place", "catch")) == "catch"
    for text in ("grab the cube", "grab the red or the blue cube", "grab the fastest red cube"):
        with pytest.raises(ValueError, match="must ask for one cube by its colour or its motion"):
            read(text)
