"""Choosing conditions by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.tabletop.specs import SPECS
from envs.task import find_task, make_task, use_task_modules
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


def _missing(task: str) -> dict[str, str]:
    spec = find_task(task)
    env = make_task(task, cameras=spec.cameras[:1], size=32)
    try:
        return {name: why for name, condition in CONTROLS.items() if (why := condition.missing(env, spec))}
    finally:
        env.close()


@pytest.mark.parametrize("task", sorted(SPECS))
def test_our_tasks_have_what_every_control_needs(task: str) -> None:
    assert _missing(task) == {}


def test_what_a_task_lacks_is_said_control_by_control(foreign: Path) -> None:
    use_task_modules([str(foreign)])
    lacking = {
        "held_out_phrasing": "reset takes no phrasing 'held_out'",
        "unseen_combination": "reset takes no combinations 'held_out'",
        "shuffled_instruction": "it has no counterfactual instructions",
    }
    assert _missing("dots/plain") == lacking
    assert _missing("dots/alone") == {**lacking, "expert": "it has no expert"}
