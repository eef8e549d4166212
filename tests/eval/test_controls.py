"""Choosing conditions by name."""

from __future__ import annotations

import pytest

from eval.controls import CONTROLS, choose_controls
from eval.results import CONDITIONS


def test_every_control_is_known_to_the_report() -> None:
    assert set(CONTROLS) <= set(CONDITIONS)


def test_the_plain_policy_always_comes_first() -> None:
    assert choose_controls("none") == ["policy"]
    assert choose_controls("expert,blank_image") == ["policy", "blank_image", "expert"]
    assert choose_controls("all")[0] == "policy"
    assert set(choose_controls("all")) == set(CONTROLS)


def test_an_unknown_control_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean frozen_frames"):
        choose_controls("frozen_frame")
