"""How a round's episodes are shared out."""

from __future__ import annotations

import pytest

from configs.dagger import DaggerConfig

TASKS = ("easy", "hard", "middling")
JUDGED = {"easy": (20, 20), "hard": (2, 20), "middling": (14, 20)}


def test_without_focus_every_task_gets_as_many() -> None:
    assert DaggerConfig(episodes=7).shared_out(JUDGED, TASKS) == dict.fromkeys(TASKS, 7)


def test_with_focus_most_go_where_the_policy_fails() -> None:
    shared = DaggerConfig(episodes=50, focus=True).shared_out(JUDGED, TASKS)
    assert list(shared) == list(TASKS)
    assert sum(shared.values()) == pytest.approx(150, abs=2)
    assert shared["hard"] > shared["middling"] > shared["easy"] >= 5
    # (1, 19, 7) / 22, of what is left when each has its tenth.
    assert shared == {"easy": 10, "hard": 100, "middling": 40}


def test_with_focus_half_of_the_samples_go_where_the_policy_fails() -> None:
    weights = DaggerConfig(focus=True).weights(JUDGED, TASKS)
    # Laplace: 1, 19 and 7 of 22 fail, which is 27 in all.
    assert weights == pytest.approx({"easy": 1 / 6 + 1 / 54, "hard": 1 / 6 + 19 / 54, "middling": 1 / 6 + 7 / 54})
    assert DaggerConfig(focus=True).weights({}, TASKS) is None
    assert DaggerConfig().weights(JUDGED, TASKS) is None


def test_what_was_not_judged_is_not_guessed() -> None:
    assert DaggerConfig(episodes=7, focus=True).shared_out({}, TASKS) == dict.fromkeys(TASKS, 7)


def test_focus_needs_a_judgement() -> None:
    with pytest.raises(
        ValueError, match=r"dagger\.focus needs to know what fails; set dagger\.validation to 1 or more"
    ):
        DaggerConfig(focus=True, validation=0)
