"""Words of fifty tasks, no two of which are said alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs.seeds import split_seed
from envs.metaworld.expert import expert
from envs.metaworld.instructions import say, texts
from envs.metaworld.specs import SPECS
from envs.text import INSTRUCTION_CHARACTERS, MAX_INSTRUCTION

Make = Callable[..., Any]


def test_there_are_enough_and_none_is_shared() -> None:
    for name in SPECS:
        assert len(texts(name, "train")) >= 8
        assert len(texts(name, "held_out")) >= 4
    counted = Counter(text for name in SPECS for phrasing in ("train", "held_out") for text in texts(name, phrasing))  # type: ignore[arg-type]
    assert set(counted.values()) == {1}
    assert all(len(text) <= MAX_INSTRUCTION and set(text) <= set(INSTRUCTION_CHARACTERS) for text in counted)


def test_every_word_that_is_held_out_is_known_from_training() -> None:
    for name in SPECS:
        known = {word for text in texts(name, "train") for word in text.split()}
        assert {word for text in texts(name, "held_out") for word in text.split()} <= known, name


def test_back_is_said_where_back_is_meant() -> None:
    for phrasing in ("train", "held_out"):
        assert all("back" in text or "towards the robot" in text for text in texts("push-back", phrasing))  # type: ignore[arg-type]
        assert not any("back" in text or "robot" in text for text in texts("push", phrasing))  # type: ignore[arg-type]


def test_saying_draws_from_the_generator_alone() -> None:
    said = [say("push", "train", np.random.default_rng(3)) for _ in range(2)]
    assert said[0] == said[1]
    assert said[0] in texts("push", "train")


@pytest.mark.parametrize(("name", "turn"), [("faucet-open", 1), ("faucet-close", -1)])
def test_faucets_turn_the_way_the_words_say(name: str, turn: int, make: Make) -> None:
    """Counterclockwise as seen from above is open: that is what success asks for."""
    env = make(name)
    _, info = env.reset(seed=split_seed("test", 0))

    def arm() -> np.ndarray:
        ends = env.data.site("handleStartOpen").xpos + env.data.site("handleStartClose").xpos
        place: np.ndarray = (ends / 2 - env.data.body("faucetBase").xpos)[:2]
        return place

    start, over = arm(), False
    while not over:
        _, _, over, _, info = env.step(expert(env, info))
    end = arm()
    assert info["is_success"]
    angle = np.degrees(np.arctan2(start[0] * end[1] - start[1] * end[0], start @ end))
    assert 45 < turn * angle < 135
    word = {1: "counterclockwise", -1: "clockwise"}[turn]
    assert any(word in text.split() for text in texts(name, "train"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "way"), [("plate-slide-side", -1), ("plate-slide-back-side", 1), ("sweep", 1)])
def test_left_and_right_are_the_robots(name: str, way: int, make: Make) -> None:
    env = make(name)
    state = env.reset(seed=0)[1]["privileged"]["state"]
    assert way * (state[-3] - state[4]) > 0.1
    assert any({-1: "left", 1: "right"}[way] in text.split() for text in texts(name, "train"))  # type: ignore[arg-type]
