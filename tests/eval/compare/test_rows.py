"""Comparisons: rates over training seeds, pairs with the reference, rows that failed, and what people get to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from configs.seeds import split_seed
from eval.compare.page import bars, short_title, write_comparison
from eval.compare.rows import RESULTS, RowOutcome, comparison_table, load_row, save_row, summarise
from eval.cost import Cost
from eval.results import CheckpointInfo, EpisodeResult, Results, TaskResult, save_results, summarise_condition
from eval.statistics import paired_difference, wilson_interval
from eval.tubes import TubeScores

COST = Cost(parameters=770_000, trained=770_000, flops=90_000_000, latency_p50_ms=2.5, latency_p99_ms=4.0)
REFERENCE = {0: [1, 1, 1, 0, 1], 1: [1, 0, 1, 1, 1]}
OTHER = {0: [0, 1, 0, 0, 1]}


def judged(folder: Path, outcomes: Sequence[int], *, control: bool = True, **more: Sequence[int]) -> None:
    """Results of `track` with a control, and of more tasks without."""
    tube = TubeScores(temporal_iou=0.75, tube_iou=0.25)
    seeds = [split_seed("test", i) for i in range(len(outcomes))]
    episodes = [
        EpisodeResult(seed=seed, success=bool(o), box_iou=0.5, tube=tube, steps=3)
        for seed, o in zip(seeds, outcomes, strict=True)
    ]
    shuffled = [EpisodeResult(seed=seed, success=False, steps=3) for seed in seeds]
    conditions = {"policy": summarise_condition("policy", episodes)}
    if control:
        conditions["shuffled_instruction"] = summarise_condition("shuffled_instruction", shuffled, policy=episodes)
    tasks = {"track": TaskResult(conditions=conditions)}
    for task, found in more.items():
        others = [EpisodeResult(seed=split_seed("test", i), success=bool(o), steps=3) for i, o in enumerate(found)]
        tasks[task] = TaskResult(conditions={"policy": summarise_condition("policy", others)})
    results = Results(checkpoint=CheckpointInfo(path="x"), seed=0, tasks=tasks)
    save_results(results, folder / RESULTS)


@pytest.fixture
def rows(tmp_path: Path) -> list[tuple[RowOutcome, Path]]:
    made = []
    for variant, by_seed in (("reference", REFERENCE), ("other", OTHER)):
        for seed, outcomes in by_seed.items():
            folder = tmp_path / variant / str(seed)
            judged(folder, outcomes)
            made.append(
                (RowOutcome(variant=variant, seed=seed, samples=640, samples_per_second=320.0, cost=COST), folder)
            )
    broken = RowOutcome(variant="broken", seed=0, failure="out of memory; lower train.batch")
    return [*made, (broken, tmp_path / "broken")]


def test_seeds_are_joined_and_compared_in_pairs(rows: list[tuple[RowOutcome, Path]]) -> None:
    reference, other, broken = summarise(rows, ["track"])
    assert reference.success is not None
    assert (reference.success.rate, reference.success.episodes) == (0.8, 10)
    assert (reference.success.low, reference.success.high) == wilson_interval(8, 10)
    assert reference.success.by_seed == [0.8, 0.8]
    assert reference.seeds == [0, 1]
    assert reference.difference is None
    assert other.success is not None
    assert other.success.rate == 0.4
    # Seed 1 of the reference has no partner.
    assert other.difference == paired_difference([bool(o) for o in OTHER[0]], [bool(o) for o in REFERENCE[0]])
    assert other.controls["shuffled_instruction"].rate == 0.0
    assert (other.box_iou, other.tube_iou, other.temporal_iou) == (0.5, 0.25, 0.75)
    assert other.samples_per_second == 320.0
    assert other.cost == COST
    assert broken.success is None
    assert broken.failures == ["seed 0: out of memory; lower train.batch"]


def test_a_control_counts_for_the_seeds_that_were_judged_with_it(tmp_path: Path) -> None:
    rows = []
    for seed, control in ((0, False), (1, True)):
        judged(tmp_path / str(seed), [1, 1, 0], control=control)
        rows.append((RowOutcome(variant="reference", seed=seed), tmp_path / str(seed)))
    [entry] = summarise(rows, ["track"])
    assert entry.success is not None
    assert (entry.success.episodes, entry.controls["shuffled_instruction"].episodes) == (6, 3)


def test_several_tasks_are_also_shown_together(tmp_path: Path) -> None:
    made = []
    for variant, track, push in (("reference", [1, 1, 0], [1, 1, 1]), ("other", [1, 0, 0], [0, 0, 1])):
        judged(tmp_path / variant, track, push=push)
        made.append((RowOutcome(variant=variant, seed=0), tmp_path / variant))
    entries = summarise(made, ["track", "push"])
    assert [entry.task for entry in entries] == [*["all 2 tasks"] * 2, *["track"] * 2, *["push"] * 2]
    reference, other = entries[:2]
    assert reference.success is not None
    assert (reference.success.rate, reference.success.episodes) == (5 / 6, 6)
    assert other.difference == paired_difference([True, *[False] * 4, True], [True, True, False, *[True] * 3])
    assert other.controls == {}  # only one of them offers it
    assert entries[2].controls
    assert "| all 2 tasks | other | 1 | 33.3 %" in comparison_table(entries)


def test_the_table_and_the_page_show_all_of_it(rows: list[tuple[RowOutcome, Path]], tmp_path: Path) -> None:
    entries = summarise(rows, ["track"])
    table = comparison_table(entries)
    assert "| track | reference | 2 | 80.0 % (49.0 to 94.3) | – | 0.0 % | 0.50 | 0.25 | 0.75 | 0.77 M |" in table
    assert "| 0.77 M | 90 | 320 | 2.5, 4.0 ms |" in table
    assert "−40.0" in table
    assert "broken (track): seed 0: out of memory" in table
    page = write_comparison(entries, tmp_path).read_text()
    for words in ("reference", "other", "40.0 %", "out of memory", "<svg", "single training seeds", "m_vIoU", "0.75"):
        assert words in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")


def test_budgets_are_compared_one_by_one_and_drawn_as_a_curve(tmp_path: Path) -> None:
    outcomes = {("reference", 64): [0, 0, 1], ("reference", 640): [1, 1, 1], ("other", 64): [0, 0, 0]}
    outcomes["other", 640] = [0, 1, 1]
    rows = []
    for (variant, budget), successes in outcomes.items():
        folder = tmp_path / variant / str(budget)
        judged(folder, successes)
        rows.append((RowOutcome(variant=variant, seed=0, budget=budget, samples=budget), folder))
    rows.append((RowOutcome(variant="broken", seed=0, budget=6400, failure="no disk"), tmp_path))
    entries = summarise(rows, ["track"])
    assert [(e.variant, e.budget) for e in entries] == [*outcomes, ("broken", 6400)]
    assert [None if e.difference is None else round(3 * e.difference.difference) for e in entries[:4]] == [
        None,
        None,
        -1,
        -1,
    ]
    table = comparison_table(entries)
    assert "| track | other | 640 | 1 | 66.7 %" in table
    assert "broken (track, 6\N{THIN SPACE}400 samples): seed 0: no disk" in table
    page = write_comparison(entries, tmp_path).read_text()
    assert "Success against samples" in page
    picture = (tmp_path / "track_samples.svg").read_text()
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    for words in ("training samples", "reference", "other", "--policy: #"):
        assert words in picture
    assert "dasharray: ;" not in picture  # not every viewer draws such a line


def test_long_names_leave_room_for_the_bars(rows: list[tuple[RowOutcome, Path]]) -> None:
    """A plot whose axes collapse warns, and warnings are errors here."""
    long = "fusion=intermediate,fusion.interaction=bidirectional,fusion.position=multi"
    assert short_title(long) == "fusion intermediate, interaction bidirectional, position multi"
    renamed = [(replace(outcome, variant=outcome.variant.replace("other", long)), folder) for outcome, folder in rows]
    drawn = bars(summarise(renamed, ["track"]))
    assert drawn is not None
    assert "position multi" in drawn


def test_rows_are_kept_on_disk(tmp_path: Path) -> None:
    outcome = RowOutcome(
        variant="a", seed=3, changes={"policy.frames": 1}, samples=5, samples_per_second=1.0, cost=COST
    )
    save_row(outcome, tmp_path)
    assert load_row(tmp_path) == outcome
    assert load_row(tmp_path / "nowhere") is None
    (tmp_path / "row.json").write_text('{"variant"')
    assert load_row(tmp_path) is None
