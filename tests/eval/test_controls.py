"""Choosing conditions by name."""

from __future__ import annotations

import pytest

from eval.controls import CONTROLS, choose_controls, describe, in_order
from eval.results import summarise_condition


def test_every_condition_says_something_of_its_own() -> None:
    sentences = [describe(name) for name in CONTROLS]
    assert all(sentences)
    assert len(set(sentences)) == len(sentences)
    assert "first action" in describe("previous_action")
    assert describe("mine") == ""


def test_conditions_are_ordered_for_reports() -> None:
    names = ["mine", "expert", "policy", "blank_image"]
    assert list(in_order({name: summarise_condition(name, []) for name in names})) == [
        "policy",
        "blank_image",
        "expert",
        "mine",
    ]


def test_the_plain_policy_always_comes_first() -> None:
    assert choose_controls("none") == ["policy"]
    assert choose_controls("expert,blank_image") == ["policy", "blank_image", "expert"]
    assert choose_controls("all")[0] == "policy"
    assert set(choose_controls("all")) == set(CONTROLS)


def test_an_unknown_control_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean frozen_frames"):
        choose_controls("frozen_frame")
