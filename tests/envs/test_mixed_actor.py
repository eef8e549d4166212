"""Policy and expert by turns: whose turn it is, when it changes, and what the expert would have done."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, cast

import numpy as np
import pytest
from gymnasium import spaces

from envs.actors import MixedActor
from envs.rollout import World
from envs.task import ActionScale

STEPS = 60
OTHER, EXPERT = 0.5, -0.25  # what the two do, in the environment's own unit


class Other:
    """Stands for a policy; counts what it was shown."""

    def __init__(self) -> None:
        self.seen = 0

    def reset(self, worlds: Sequence[World | None]) -> None:
        self.seen = 0

    def act(self, worlds: Sequence[World | None]) -> list[np.ndarray | None]:
        self.seen += 1
        return [None if world is None else np.array([OTHER], np.float32) for world in worlds]


def expert(_env: Any, _info: dict[str, Any]) -> np.ndarray:
    return np.array([EXPERT], np.float32)


def world(row: int, seed: int) -> World:
    scale = ActionScale(spaces.Box(-1, 3, (1,), np.float32))
    return World(env=cast(Any, None), seed=seed, row=row, action_names=("dx",), scale=scale)


def turns(actor: MixedActor, *seeds: int) -> list[str]:
    """Who acts at each step of the rows, as texts of "e" and "o"."""
    worlds: list[World | None] = [world(row, seed) for row, seed in enumerate(seeds)]
    actor.reset(worlds)
    found = ["" for _ in seeds]
    for step in range(STEPS):
        for row, (each, action) in enumerate(zip(worlds, actor.act(worlds), strict=True)):
            assert each is not None
            assert action is not None
            assert actor.clean[row].tolist() == [np.float32((EXPERT - 1) / 2)]
            found[row] += "e" if action[0] == np.float32(EXPERT) else "o"
            each.step = step + 1
    return found


@pytest.mark.parametrize(("share", "who"), [(1.0, "e"), (0.0, "o")])
@pytest.mark.parametrize("stretch", [0, 1, 7])
def test_one_of_the_two_may_act_alone(share: float, who: str, stretch: int) -> None:
    other = Other()
    assert turns(MixedActor([expert], other, share, stretch), 3) == [who * STEPS]
    assert other.seen == STEPS  # it always sees what happens


def test_turns_last_for_the_stretch_and_begin_with_a_decision() -> None:
    lengths, firsts = [], []
    for seed in range(30):
        [text] = turns(MixedActor([expert], Other(), 0.5, 5, every=2), seed)
        runs = [len(list(group)) for _, group in groupby(text)]
        starts = np.cumsum([0, *runs[:-1]])
        assert not (starts % 2).any()
        firsts.append(runs[0])
        lengths += runs[1:-1]
    assert min(lengths) >= 5
    assert min(firsts) < 5  # the first turn is cut, so that all steps of an episode can begin one


def test_the_share_is_that_of_the_steps() -> None:
    texts = [turns(MixedActor([expert], Other(), 0.25, 1), seed)[0] for seed in range(40)]
    assert "".join(texts).count("e") / (40 * STEPS) == pytest.approx(0.25, abs=0.03)


def test_without_a_stretch_it_is_drawn_once_an_episode() -> None:
    texts = [turns(MixedActor([expert], Other(), 0.5, 0), seed)[0] for seed in range(20)]
    assert set(texts) == {"e" * STEPS, "o" * STEPS}


def test_the_seed_decides_whatever_the_row() -> None:
    first = turns(MixedActor([expert] * 2, Other(), 0.5, 4), 7, 8)
    assert turns(MixedActor([expert] * 2, Other(), 0.5, 4), 8, 7) == first[::-1]
    assert first[0] != first[1]


def test_rows_that_are_over_do_nothing() -> None:
    actor = MixedActor([expert] * 2, Other(), 1.0, 4)
    rows = [world(0, 1), None]
    actor.reset(rows)
    assert [action is None for action in actor.act(rows)] == [False, True]
