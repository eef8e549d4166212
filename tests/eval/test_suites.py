"""Tasks of a suite together: each difficulty, and both averages."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.report.page import difficulty_table, write_report
from eval.results import POLICY, CheckpointInfo, EpisodeResult, Results, TaskResult, summarise_condition
from eval.suites import ALL, MEAN, by_difficulty

COUNTS = {"a/easy-one": 4, "a/easy-two": 4, "a/hard": 1}
DIFFICULTY = {"a/easy-one": "easy", "a/easy-two": "easy", "a/hard": "hard"}


@pytest.fixture
def results() -> Results:
    """Three tasks of four episodes each; one of them was judged under a control, too."""
    tasks = {}
    for name, successes in COUNTS.items():
        episodes = [EpisodeResult(seed=i, success=i < successes, steps=9) for i in range(4)]
        conditions = {POLICY: summarise_condition(POLICY, episodes)}
        if name == "a/hard":
            conditions["blank_image"] = summarise_condition("blank_image", episodes)
        tasks[name] = TaskResult(conditions=conditions)
    return Results(
        checkpoint=CheckpointInfo(path="somewhere"), seed=0, tasks=tasks, settings={"difficulty": DIFFICULTY}
    )


def test_each_difficulty_and_both_averages(results: Results) -> None:
    groups = {group.name: group for group in by_difficulty(results)}
    assert list(groups) == ["easy", "hard", MEAN, ALL]
    assert [group.tasks for group in groups.values()] == [2, 1, 3, 3]
    rates = {name: group.rates[POLICY] for name, group in groups.items()}
    assert rates["easy"].rate == 1
    assert rates["hard"].rate == 0.25
    assert rates[MEAN].rate == 0.625
    assert rates[MEAN].interval is None
    assert rates[ALL].rate == 0.75
    assert rates[ALL].interval is not None
    assert all("blank_image" not in group.rates for group in (groups["easy"], groups[MEAN], groups[ALL]))


def test_they_are_in_the_table_and_on_the_page(results: Results, tmp_path: Path) -> None:
    table = difficulty_table(results)
    assert "| easy | 2 | 100.0 % (67.6 to 100.0) |" in table
    assert f"| {MEAN} | 3 | 62.5 % |" in table
    page = write_report(results, tmp_path).read_text()
    assert f"<td>{MEAN}</td><td>3</td>" in page


def test_one_difficulty_needs_no_table(results: Results) -> None:
    same = Results(
        checkpoint=results.checkpoint,
        seed=0,
        tasks=results.tasks,
        settings={"difficulty": dict.fromkeys(DIFFICULTY, "easy")},
    )
    assert by_difficulty(same) == []
    assert difficulty_table(same) == ""
