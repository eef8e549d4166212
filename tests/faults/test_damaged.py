"""Files that were changed, and signed again where they are signed: what does not follow from the rest is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.seeds import SEED_STARTS, split_seed
from eval.results import (
    CheckpointInfo,
    EpisodeResult,
    Results,
    TaskResult,
    _checksum,
    load_results,
    save_results,
    summarise_condition,
)
from training.data.episodes import HEADER, Dataset, DatasetError, checksum, header_checksum, open_dataset

WriteSmall = Callable[..., Dataset]


def sign(folder: Path) -> None:
    header = json.loads((folder / HEADER).read_text())
    for name in header["files"]:
        header["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": checksum(folder / name)}
    header["sha256"] = header_checksum(header)
    (folder / HEADER).write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("offsets", lambda a: a.__setitem__(1, a[1] + 3), "episodes begin elsewhere than header.json says"),
        ("seeds", lambda a: a.__setitem__(1, a[0]), "seed 0 is there 2 times, expected each once"),
        ("seeds", lambda a: a.__setitem__(0, -5), "seed -5 is negative"),
        (
            "events",
            lambda a: a.__setitem__((1, 0, 0), -1),
            r"episode 1 has event \[-1, 8\], expected a part of its 9 steps",
        ),
        ("events", lambda a: a.__setitem__((1, 0, 1), 10), r"episode 1 has event \[3, 10\]"),
        ("events", lambda a: a.__setitem__((1, 0), (5, 2)), r"episode 1 has event \[5, 2\]"),
        ("agent_pos", lambda a: a.__setitem__((2, 1), np.nan), "not all are finite numbers"),
        ("executed", lambda a: a.__setitem__((2, 1), 1.5), r"not all are numbers in \[-1, 1\]"),
        ("boxes", lambda a: a.__setitem__((2, 0, 0), 3), r"not all are numbers in \[0, 1\]"),
    ],
)
def test_a_dataset(write_small: WriteSmall, name: str, change: Callable[[np.ndarray], None], words: str) -> None:
    folder = write_small().path
    array = np.load(folder / f"{name}.npy")
    change(array)
    np.save(folder / f"{name}.npy", array)
    with pytest.raises(DatasetError, match=f"^{folder / name}.npy: checksum differs|^{folder / name}.npy: .*{words}"):
        open_dataset(folder)
    sign(folder)
    with pytest.raises(DatasetError, match=f"^{folder / name}.npy: {words}") as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    policy = [EpisodeResult(seed=split_seed("test", i), success=i % 4 > 0, mean_error_m=0.1) for i in range(20)]
    blind = [EpisodeResult(seed=split_seed("test", i), success=i % 4 == 0, mean_error_m=0.2) for i in range(20)]
    conditions = {
        "policy": summarise_condition("policy", policy),
        "blank_image": summarise_condition("blank_image", blind, policy=policy),
    }
    info = CheckpointInfo(path="a", provenance={"settings": {"train": {"seed": 3}}})
    made = Results(checkpoint=info, seed=0, tasks={"track": TaskResult(conditions=conditions)})
    return save_results(made, tmp_path / "results.json")


def altered(path: Path, where: str, value: Any, *, signed: bool) -> None:
    plain = json.loads(path.read_text())
    part, *parents = [plain, *where.split(".")]
    for key in parents[:-1]:
        part = part[int(key)] if isinstance(part, list) else part[key]
    part[parents[-1]] = value
    if signed:
        plain["sha256"] = _checksum({key: item for key, item in plain.items() if key != "sha256"})
    path.write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("policy.results.0.success", True, "success_rate: got 0.75, expected 0.8, as counted in results"),
        ("policy.low", 0.7, "policy.low: got 0.7, expected 0.531"),
        ("policy.high", 0.8, "policy.high: got 0.8, expected 0.88"),
        ("policy.mean_error_m", 0.01, "policy.mean_error_m: got 0.01, expected 0.1"),
        ("blank_image.difference_to_policy.p_value", 0.9, "blank_image.difference_to_policy: got"),
        ("policy.results.0.seed", SEED_STARTS["train"] + 5, "results: got seed 5, expected 200000000, a test seed"),
    ],
)
def test_results_that_do_not_follow_from_their_episodes(results: Path, where: str, value: Any, words: str) -> None:
    altered(results, f"tasks.track.conditions.{where}", value, signed=True)
    with pytest.raises(ValueError, match=rf"^{results}: tasks\.track\.conditions\..*{words}") as caught:
        load_results(results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("checkpoint.provenance.settings.train.seed", 4),
        ("tasks.track.conditions.policy.results.0.failure", "bad luck"),
        ("versions", {"torch": "9"}),
    ],
)
def test_anything_else_that_was_changed(results: Path, where: str, value: Any) -> None:
    load_results(results)
    altered(results, where, value, signed=False)
    with pytest.raises(ValueError, match="the file was changed; evaluate again"):
        load_results(results)


def test_results_of_earlier_versions_are_read(results: Path) -> None:
    plain = json.loads(results.read_text())
    del plain["sha256"], plain["checkpoint"]["weights"]
    results.write_text(json.dumps(plain))
    assert load_results(results).tasks["track"].conditions["policy"].successes == 15


@pytest.mark.parametrize("name", ["default", "track_event", "track_occlusion", "colour_reacher"])
def test_the_published_results_follow_from_their_episodes(name: str) -> None:
    load_results(Path(__file__).parents[2] / "docs" / "results" / f"{name}.json")
