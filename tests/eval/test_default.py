"""The policy that ships: on a few unseen scenes it must do what it was made for, and listen."""

from __future__ import annotations

import pytest

from eval.evaluate import EvalConfig, evaluate
from vla_policy.checkpoint import DEFAULT_POLICY, load_checkpoint

EPISODES = 20
LEAST_SUCCESSES = 15  # a policy of 90 % has fewer once in a hundred times
MOST_DEAF = 5  # successes when another object is named


@pytest.mark.parametrize("task", load_checkpoint(DEFAULT_POLICY).purpose.tasks)
def test_the_default_policy_succeeds_and_listens(task: str) -> None:
    config = EvalConfig(tasks=(task,), episodes=EPISODES, controls=("shuffled_instruction",))
    conditions = evaluate(DEFAULT_POLICY, config).tasks[task].conditions
    assert conditions["policy"].invalid == 0
    assert sum(e.success for e in conditions["policy"].results) >= LEAST_SUCCESSES
    assert sum(e.success for e in conditions["shuffled_instruction"].results) <= MOST_DEAF


def test_the_default_policy_is_small() -> None:
    assert sum(file.stat().st_size for file in DEFAULT_POLICY.rglob("*")) <= 5_000_000
