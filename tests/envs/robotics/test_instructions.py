"""Words of three tasks, no two of which are said alike."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from envs.robotics.instructions import say, texts
from envs.robotics.specs import SPECS
from envs.text import INSTRUCTION_CHARACTERS, MAX_INSTRUCTION


def test_there_are_enough_and_none_is_shared() -> None:
    for name in SPECS:
        assert len(texts(name, "train")) == 12
        assert len(texts(name, "held_out")) == 4
    counted = Counter(text for name in SPECS for phrasing in ("train", "held_out") for text in texts(name, phrasing))  # type: ignore[arg-type]
    assert set(counted.values()) == {1}
    assert all(len(text) <= MAX_INSTRUCTION and set(text) <= set(INSTRUCTION_CHARACTERS) for text in counted)


def test_every_word_that_is_held_out_is_known_from_training() -> None:
    for name in SPECS:
        known = {word for text in texts(name, "train") for word in text.split()}
        assert {word for text in texts(name, "held_out") for word in text.split()} <= known, name


def test_only_tasks_with_a_block_name_one() -> None:
    for name in SPECS:
        said = [text for phrasing in ("train", "held_out") for text in texts(name, phrasing)]  # type: ignore[arg-type]
        assert {"block" in text or "cube" in text for text in said} == {name != "reach"}
        assert all(" red " in text for text in said)


def test_saying_draws_from_the_generator_alone() -> None:
    said = [say("push", "train", np.random.default_rng(3)) for _ in range(2)]
    assert said[0] == said[1]


@pytest.mark.parametrize("phrasing", ["train", "held_out"])
def test_an_episode_says_one_of_them(phrasing: Any, make: Any) -> None:
    env = make("push")
    said = {env.reset(seed=seed, options={"phrasing": phrasing})[0]["instruction"] for seed in range(60)}
    assert said == set(texts("push", phrasing))
    assert env.target_name == "block"
    other, index = env.counterfactual(phrasing, np.random.default_rng(0))
    assert other in texts("reach", phrasing)
    assert index == 1
