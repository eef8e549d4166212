"""`place`: neither colour nor shape alone says what is meant, and what is put must be let go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.actors import ExpertActor
from envs.contact.place import LIFTED, SHAPES, THINGS, expert, read
from envs.contact.scene import BOWL_RADIUS
from envs.guessing import guess_task
from envs.tabletop.objects import HELD_OUT_COMBINATIONS


@pytest.fixture
def env(make: Any) -> Any:
    return make("place")


def test_two_colours_times_two_shapes(env: Any, task_of: Callable[[Any], Any]) -> None:
    verbs = set()
    for seed in range(40):
        env.reset(seed=seed)
        task = task_of(env)
        assert task.colours[:2] == task.colours[2:THINGS]
        assert len({*task.colours[:2]}) == len({*task.colours[THINGS:]}) == 2
        assert (task.colours[task.target], SHAPES[task.target]) not in HELD_OUT_COMBINATIONS
        verbs.add(task.verb)
    assert verbs == {"put", "lift"}
    env.reset(seed=0, options={"combinations": "held_out"})
    assert (task.colours[task.target], SHAPES[task.target]) in HELD_OUT_COMBINATIONS


def test_what_is_put_lies_in_the_bowl_and_is_let_go(env: Any, play: Any, task_of: Callable[[Any], Any]) -> None:
    known = play(env, "place", ExpertActor(expert), 1, verb="put").info["privileged"]
    thing, into = known["bodies"][known["target"]], known["fixtures"][0]
    assert known["goal"] == THINGS
    assert np.hypot(*(thing - into)[:2]) < BOWL_RADIUS
    assert not task_of(env).table.props.touching().any()


def test_what_is_lifted_is_held_by_both_fingers(env: Any, play: Any, task_of: Callable[[Any], Any]) -> None:
    known = play(env, "place", ExpertActor(expert), 1, verb="lift").info["privileged"]
    task = task_of(env)
    assert known["goal"] == known["target"] == task.target
    assert known["bodies"][task.target, 2] - task.start[task.target, 2] > LIFTED
    assert known["gripped"][task.target]


def test_letting_go_in_the_air_is_dropping(env: Any, finish: Any, task_of: Callable[[Any], Any]) -> None:
    dropped = []

    def clumsy(info: dict[str, Any]) -> np.ndarray:
        known = info["privileged"]
        action = expert(env, info)
        if dropped or known["bodies"][known["target"], 2] > 0.06:
            dropped.append(True)
            action = np.array([0, 0, 0, 0, 1], np.float32)
        return action

    assert not finish(env, clumsy, 2, verb="lift")["is_success"]
    assert task_of(env).diagnosis() == "dropped"


def test_a_users_words_are_read(env: Any, task_of: Callable[[Any], Any]) -> None:
    options = read("put the blue ball into the yellow bowl")
    assert options == {"verb": "put", "colour": "blue", "shape": "ball", "bowl": "yellow"}
    env.reset(seed=3, options=options)
    assert task_of(env).target_name == "blue ball (into the yellow bowl)"
    options = read("please pick up the green block")
    assert options == {"verb": "lift", "colour": "green", "shape": "cube"}
    env.reset(seed=3, options=options)
    assert task_of(env).target_name == "green cube (up)"
    assert guess_task("drop the red cube into the green dish", ("push", "reach", "place")) == "place"
    for text in (
        "put the blue ball",
        "lift the ball",
        "put the blue ball into the bowl",
        "lift the red and blue cube",
        "take the red cube out of the yellow bowl",
    ):
        with pytest.raises(ValueError, match=r"must name one cube or ball by its colour and say where to"):
            read(text)
