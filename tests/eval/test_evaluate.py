"""Whole evaluations of an untrained policy: determinism, controls, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from envs.episode import SEED_STARTS
from eval.controls import CONTROLS
from eval.evaluate import EvalConfig, evaluate
from eval.results import Results


def _rows(results: Results, condition: str = "policy") -> list[dict[str, Any]]:
    return [asdict(e) for e in results.tasks["track"].conditions[condition].results]


def test_outcomes_do_not_depend_on_the_number_of_workers(tiny_checkpoint: Path) -> None:
    settings: dict[str, Any] = {"episodes": 12, "controls": ()}
    one = evaluate(tiny_checkpoint, EvalConfig(workers=1, **settings))
    two = evaluate(tiny_checkpoint, EvalConfig(workers=2, **settings))
    assert _rows(one) == _rows(two)
    assert [row["seed"] for row in _rows(one)] == [SEED_STARTS["test"] + i for i in range(12)]


def test_every_control_runs_and_means_what_it_says(tiny_checkpoint: Path) -> None:
    config = EvalConfig(episodes=4, workers=2, controls=tuple(CONTROLS))
    results = evaluate(tiny_checkpoint, config)
    conditions = results.tasks["track"].conditions
    assert set(conditions) == set(CONTROLS)
    assert conditions["expert"].success_rate == 1.0
    assert all(row["instruction"] == row["task_instruction"] for row in _rows(results))
    shuffled = _rows(results, "shuffled_instruction")
    assert all(row["instruction"] != row["task_instruction"] for row in shuffled)
    assert all(row["followed_instruction"] is not None for row in shuffled)
    assert all(row["valid"] and row["steps"] == 110 for name in conditions for row in _rows(results, name))


def test_the_seed_moves_the_scenes(tiny_checkpoint: Path) -> None:
    first = evaluate(tiny_checkpoint, EvalConfig(episodes=2, workers=1, controls=()))
    second = evaluate(tiny_checkpoint, EvalConfig(episodes=2, seed=1, workers=1, controls=()))
    assert _rows(first)[1]["task_instruction"] == _rows(second)[0]["task_instruction"]


def test_a_task_that_the_policy_cannot_do_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="task 'reach' needs action 'dz', the policy gives dx, dy"):
        evaluate(tiny_checkpoint, EvalConfig(tasks=("reach",), episodes=1))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tasks": ("trak",)}, "did you mean track"),
        ({"episodes": 0}, "episodes 0"),
        ({"workers": -1}, "workers -1"),
        ({"seed": -1}, "seed -1"),
        ({"timeout": 0.0}, "timeout"),
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvalConfig(**bad)
