"""`stack`: the cube lies on the other one and is let go, and the order of the words says which is which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.actors import ExpertActor
from envs.contact.stack import CUBES, HALF, HELD_OUT_PAIRS, LEVEL, REST, expert, read
from envs.guessing import guess_task


@pytest.fixture
def env(make: Any) -> Any:
    return make("stack")


def test_colours_single_out_cubes(env: Any, task_of: Callable[[Any], Any]) -> None:
    counts = set()
    for seed in range(40):
        env.reset(seed=seed)
        task = task_of(env)
        named = [colour for colour in task.colours if colour]
        assert len(set(named)) == len(named)
        counts.add(len(named))
        meant = {(task.colours[cube], task.colours[base]) for cube, base in task.aims if cube >= 0}
        assert not meant & HELD_OUT_PAIRS
        assert not task._placed.any()
    assert counts == {CUBES - 1, CUBES}
    env.reset(seed=0, options={"combinations": "held_out"})
    assert task.colours[:2] in HELD_OUT_PAIRS


def test_what_is_stacked_lies_on_the_other_and_is_let_go(env: Any, play: Any, task_of: Callable[[Any], Any]) -> None:
    known = play(env, "stack", ExpertActor(expert), 1).info["privileged"]
    mine, base = known["bodies"][:2]
    assert known["goal"] == 1
    assert np.hypot(*(mine - base)[:2]) < HALF
    assert abs(mine[2] - base[2] - 2 * HALF) < LEVEL
    assert not task_of(env).table.props.touching().any()


def test_what_does_not_stay_is_no_success(env: Any, finish: Any, task_of: Callable[[Any], Any]) -> None:
    """Let go on the other one, and pushed down before it has lain there for long enough."""
    task = task_of(env)

    def hasty(info: dict[str, Any]) -> np.ndarray:
        if task._placed[0, 1] == REST - 2:
            task.table.props.push(0, np.array([0.8, 0.0]), 0.0)
        return expert(env, info) if not task._stayed[0, 1] else np.zeros(5, np.float32)

    assert not finish(env, hasty, 2)["is_success"]
    assert task.diagnosis() == "did not stay on it"


def test_letting_go_in_the_air_is_dropping(env: Any, finish: Any, task_of: Callable[[Any], Any]) -> None:
    dropped = []

    def clumsy(info: dict[str, Any]) -> np.ndarray:
        if dropped or info["privileged"]["bodies"][0, 2] > 0.06:
            dropped.append(True)
            return np.array([0, 0, 0, 0, 1], np.float32)
        return expert(env, info)

    assert not finish(env, clumsy, 3)["is_success"]
    assert task_of(env).diagnosis() == "dropped"


@pytest.mark.parametrize(
    ("order", "words"), [((1, 0, 2), "wrong way round"), ((0, 2, 1), "wrong cube below"), ((2, 1, 0), "wrong cube")]
)
def test_what_went_wrong_is_named(
    order: tuple[int, ...], words: str, env: Any, finish: Any, task_of: Callable[[Any], Any]
) -> None:
    """The expert takes some cubes for others."""

    def confused(info: dict[str, Any]) -> np.ndarray:
        known = info["privileged"]
        taken = [*order, *range(len(order), CUBES)]
        return expert(env, {"privileged": {**known, **{k: known[k][taken] for k in ("bodies", "yaws", "gripped")}}})

    assert not finish(env, confused, 5)["is_success"]
    assert task_of(env).diagnosis() == words


@pytest.mark.parametrize(("lost", "words"), [(0, "fell off the table"), (1, "the other cube fell off the table")])
def test_what_cannot_be_done_any_more_ends_it(
    lost: int, words: str, env: Any, finish: Any, task_of: Callable[[Any], Any]
) -> None:
    task = task_of(env)

    def shove(info: dict[str, Any]) -> np.ndarray:
        task.table.props.push(lost, np.array([0.0, 2.0]), 0.0)
        return np.zeros(5, np.float32)

    assert not finish(env, shove, 4)["is_success"]
    assert task.step_count < task.horizon
    assert task.diagnosis() == words


def test_a_users_words_are_read(env: Any, task_of: Callable[[Any], Any]) -> None:
    options = read("please put the red cube on the blue one")
    assert options == {"cube": "red", "base": "blue"}
    env.reset(seed=3, options=options)
    assert task_of(env).target_name == "red cube (on the blue one)"
    assert read("stack the yellow block on top of the purple cube") == {"cube": "yellow", "base": "purple"}
    assert read("could you put the red one upon the other blue cube, please?") == {"cube": "red", "base": "blue"}
    tasks = ("push", "reach", "place", "stack")
    assert guess_task("put the red block onto the green cube", tasks) == "stack"
    assert guess_task("put the red block into the green bowl", tasks) == "place"
    assert guess_task("push the red block onto the green mat", tasks) == "push"
    for text in (
        "stack the red cube",
        "put the red cube and the blue one on the table",
        "put the red cube under the blue one",
        "put the red cube on the left of the blue cube",
        "put the red cube on the table near the blue one",
        "take the red cube on the blue one and put it on the table",
        "unstack the red cube on the blue one",
        "lift the red cube on the blue one",
        "put the red cube on the blue one and the green one on the table",
        "put the red cube on the red one",
        "put the red cube on the blue ball",
    ):
        with pytest.raises(
            ValueError, match="must say that one cube, named by its colour, is to be put on another one"
        ):
            read(text)


def test_a_cube_is_not_put_on_itself(env: Any) -> None:
    with pytest.raises(ValueError, match="both 'red'"):
        env.reset(seed=0, options={"cube": "red", "base": "red"})
