"""The records, what follows from them, and their file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from configs.seeds import SEED_STARTS
from eval.results import (
    CheckpointInfo,
    EpisodeResult,
    Results,
    TaskResult,
    failure_counts,
    load_results,
    save_results,
    summarise_condition,
)
from eval.statistics import paired_difference, wilson_interval

FIRST = SEED_STARTS["test"] + 100


def episode(seed: int, success: bool, **changes: Any) -> EpisodeResult:
    defaults: dict[str, Any] = {
        "steps": 3,
        "instruction": "track the red ball",
        "task_instruction": "track the red ball",
        "target": "red ball",
        "mean_error_m": 0.02 if success else 0.2,
        "errors_m": [0.3, 0.1, 0.02 if success else 0.2],
        "box_iou": 0.5,
        "failure": "" if success else "wrong target",
    }
    return EpisodeResult(seed=seed, success=success, **(defaults | changes))


@pytest.fixture
def results() -> Results:
    policy = [episode(seed, seed % 10 != 0) for seed in range(FIRST, FIRST + 20)]
    policy[3] = episode(
        FIRST + 3, False, valid=False, mean_error_m=None, errors_m=[], box_iou=None, failure="worker died"
    )
    shuffled = [episode(seed, seed % 10 == 0, followed_instruction=seed % 4 != 0) for seed in range(FIRST, FIRST + 20)]
    conditions = [
        summarise_condition("policy", policy),
        summarise_condition("shuffled_instruction", shuffled, policy=policy),
    ]
    return Results(
        checkpoint=CheckpointInfo(path="runs/a/checkpoint", provenance={"commit": "abc", "data": {"episodes": 7}}),
        seed=100,
        tasks={"track": TaskResult(control_rate_hz=150.0, conditions={each.name: each for each in conditions})},
        settings={"episodes": 20, "control_hz": 20},
        versions={"python": "3.11"},
        gl_renderer="llvmpipe",
    )


def test_a_condition_is_summed_up(results: Results) -> None:
    policy, shuffled = results.tasks["track"].conditions.values()
    assert (policy.episodes, policy.successes, policy.invalid) == (20, 17, 1)
    assert policy.success_rate == pytest.approx(17 / 20)
    assert (policy.low, policy.high) == wilson_interval(17, 20)
    assert policy.difference_to_policy is None
    assert policy.followed_rate is None
    assert policy.mean_error_m == pytest.approx((17 * 0.02 + 2 * 0.2) / 19)  # the invalid one has no error
    assert shuffled.followed_rate == pytest.approx(15 / 20)
    assert (shuffled.followed_low, shuffled.followed_high) == wilson_interval(15, 20)
    outcomes = [[row.success for row in condition.results] for condition in (shuffled, policy)]
    assert shuffled.difference_to_policy == paired_difference(*outcomes)
    assert failure_counts(policy) == {"wrong target": 2, "worker died": 1}
    assert failure_counts(policy, invalid=True) == {"worker died": 1}


def test_the_order_of_episodes_does_not_matter(results: Results) -> None:
    policy = results.tasks["track"].conditions["policy"]
    mixed = random.Random(0).sample(policy.results, len(policy.results))
    assert summarise_condition("policy", mixed) == policy


def test_only_common_seeds_are_paired() -> None:
    policy = [episode(seed, True) for seed in range(4)]
    condition = summarise_condition("frozen_frames", [episode(seed, False) for seed in range(2, 9)], policy=policy)
    assert condition.difference_to_policy is not None
    assert condition.difference_to_policy.pairs == 2
    alone = summarise_condition("frozen_frames", [episode(50, False)], policy=policy)
    assert alone.difference_to_policy is None


def test_no_episodes_give_no_rate() -> None:
    condition = summarise_condition("policy", [])
    assert condition.success_rate is None
    assert (condition.low, condition.high, condition.episodes) == (0.0, 1.0, 0)


def test_round_trip_and_layout(results: Results, tmp_path: Path) -> None:
    path = save_results(results, tmp_path / "new" / "results.json")
    assert load_results(path) == results
    assert list(path.parent.iterdir()) == [path]  # nothing unfinished stays behind
    plain = json.loads(path.read_text())
    policy = plain["tasks"]["track"]["conditions"]["policy"]
    assert {"success_rate", "low", "high", "episodes", "invalid"} <= set(policy)
    assert [row["seed"] for row in policy["results"]] == list(range(FIRST, FIRST + 20))
    assert path.read_text().count(f'"seed": {str(FIRST)[:-2]}') == 2 * 20  # one line an episode
    assert max(line.count('"seed"') for line in path.read_text().splitlines()) == 1


def test_what_json_cannot_hold_is_not_written(results: Results, tmp_path: Path) -> None:
    results.settings["where"] = tmp_path
    with pytest.raises(ValueError, match=r"results\.json: not written"):
        save_results(results, tmp_path / "results.json")
    assert not list(tmp_path.iterdir())


POLICY_AT = "tasks.track.conditions.policy"


@pytest.mark.parametrize(
    ("where", "value", "complaint"),
    [
        ("schema_version", 1, "schema_version: got 1, expected 2"),
        ("complete", "no", 'complete: got "no", expected true or false'),
        ("tasks.track.control_rate_hz", -1, "tasks.track.control_rate_hz: got -1, expected at least 0"),
        ("seed", "0", 'seed: got "0", expected an integer'),
        ("seed", True, "seed: got true, expected an integer"),
        ("checkpoint.path", None, "checkpoint.path: got null, expected a text"),
        ("tasks", [], "tasks: got [], expected an object"),
        ("colour", 1, "colour: not a known field, expected one of checkpoint, seed"),
        (f"{POLICY_AT}.low", "low", f'{POLICY_AT}.low: got "low", expected a number'),
        (f"{POLICY_AT}.high", 1.5, f"{POLICY_AT}.high: got 1.5, expected a number in [0.85, 1]"),
        (f"{POLICY_AT}.success_rate", 1.0, f"{POLICY_AT}.success_rate: got 1.0, expected 0.85, as counted"),
        (f"{POLICY_AT}.episodes", 21, f"{POLICY_AT}.episodes: got 21, expected 20"),
        (f"{POLICY_AT}.invalid", 0, f"{POLICY_AT}.invalid: got 0, expected 1"),
        (f"{POLICY_AT}.results", {}, f"{POLICY_AT}.results: got {{}}, expected a list"),
        (f"{POLICY_AT}.results.2.success", 1, f"{POLICY_AT}.results[2].success: got 1, expected true or false"),
        (f"{POLICY_AT}.results.2.seed", FIRST + 1, f"{POLICY_AT}.results: got seed {FIRST + 1} twice"),
        (f"{POLICY_AT}.results.2.box_iou", 2, f"{POLICY_AT}.results[2].box_iou: got 2, expected a number in [0, 1]"),
        (f"{POLICY_AT}.name", "expert", "tasks.track.conditions.policy.name: got 'expert', expected 'policy'"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name_and_field(
    results: Results, tmp_path: Path, where: str, value: object, complaint: str
) -> None:
    path = save_results(results, tmp_path / "results.json")
    plain = json.loads(path.read_text())
    *parents, last = where.split(".")
    part = plain
    for key in parents:
        part = part[int(key)] if isinstance(part, list) else part[key]
    part[last] = value
    path.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=r"got|known") as caught:
        load_results(path)
    assert str(caught.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(caught.value)


def test_missing_truncated_and_foreign_files_are_refused(results: Results, tmp_path: Path) -> None:
    path = save_results(results, tmp_path / "results.json")
    text = path.read_text()
    plain = json.loads(text)
    del plain["tasks"]["track"]["conditions"]["policy"]["low"]
    for content, complaint in (
        (text[: len(text) // 2], "not valid JSON, is the file complete?"),
        (json.dumps(plain), f"{POLICY_AT}.low: missing"),
        ("[]", r"got \[\], expected an object"),
        ("{}", "schema_version: got nothing, expected 2"),
        (text.replace("150.0", "NaN"), "got NaN, expected a finite number or null"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=complaint):
            load_results(path)
    with pytest.raises(ValueError, match="no such file"):
        load_results(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"valid": False}, "success: got true in an invalid episode"),
        ({"failure": "too slow"}, "failure: got 'too slow' in a successful episode"),
        ({"success": 1}, r"success: got 1 \(int\), expected a bool"),
        ({"steps": -1}, "steps: got -1"),
        ({"mean_error_m": float("nan")}, "mean_error_m: got nan"),
        ({"errors_m": [0.1, float("inf")]}, "errors_m: got inf"),
        ({"box_iou": 1.5}, r"box_iou: got 1.5, expected a number in \[0, 1\]"),
    ],
)
def test_impossible_episodes_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        episode(**({"seed": 1, "success": True} | changes))
