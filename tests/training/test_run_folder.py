"""Whether the run in a folder is the one that is asked for, also where an older version wrote it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from configs.policy import FusionConfig, GroundingConfig, PolicyConfig, WeightedConfig
from configs.training import TrainConfig
from training.error import TrainingError
from training.run_folder import CONFIG, check_same

# Of a run that began when all settings of an encoder, fusion or head lay side by side.
OLD: dict[str, Any] = {
    "encoder": {"name": "two_stream", "channels": 32, "temporal_channels": 12, "temporal_layers": 4, "clip": 5},
    "language": {"name": "transformer", "layers": 1, "pretrained": "", "frozen": True, "max_words": 20},
    "fusion": {"name": "weighted", "layers": 3, "weights": "vector", "rule": "weighted", "voters": ["spatial"]},
    "grounding": {"layers": 1},
    "head": {"name": "chunk_l1", "chunk": 4, "hidden": 256, "bins": 11},
    "width": 64,
    "heads": 4,
    "frames": 6,
}
SAME = PolicyConfig(fusion=FusionConfig(name="weighted", weighted=WeightedConfig(weights="vector")))


def described(policy: PolicyConfig) -> dict[str, Any]:
    return {"policy": asdict(policy), "train": asdict(TrainConfig()), "data": {}}


def written(folder: Path, policy: dict[str, Any]) -> Path:
    (folder / CONFIG).write_text(json.dumps({"policy": policy, "train": asdict(TrainConfig()), "data": {}}))
    return folder


def test_a_run_of_an_older_version_is_the_same_run(tmp_path: Path) -> None:
    check_same(written(tmp_path, OLD), described(SAME))


def test_a_run_that_did_not_mention_its_divergence_had_the_former_one(tmp_path: Path) -> None:
    old = {**OLD, "grounding": {"layers": 1, "interval_weight": 1.0}}
    tells_time = replace(SAME, grounding=GroundingConfig(interval_weight=1.0))
    with pytest.raises(TrainingError, match=r"divergence was 'from_truth' and is now 'from_prediction'"):
        check_same(written(tmp_path, old), described(tells_time))
    as_it_was = replace(SAME, grounding=GroundingConfig(interval_weight=1.0, divergence="from_truth"))
    check_same(written(tmp_path, old), described(as_it_was))


def test_and_what_differs_is_named_as_it_is_called_today(tmp_path: Path) -> None:
    folder = written(tmp_path, {**OLD, "heads": 2})
    with pytest.raises(TrainingError, match=r"policy\.attention_heads was 2 and is now 4; give the same"):
        check_same(folder, described(SAME))
    other = replace(SAME, fusion=FusionConfig(name="weighted"))
    with pytest.raises(TrainingError, match=r"policy\.fusion\.weighted\.weights was 'vector' and is now 'scalar'"):
        check_same(written(tmp_path, OLD), described(other))


def test_a_fusion_that_did_not_mention_the_exchange_during_encoding_had_none(tmp_path: Path) -> None:
    old = {**OLD, "fusion": {"name": "bidirectional", "layers": 2}}
    with pytest.raises(TrainingError, match=r"fusion\.bidirectional\.during was 'none' and is now 'middle'"):
        check_same(written(tmp_path, old), described(PolicyConfig()))


@pytest.mark.parametrize("damaged", [{"heads": 4}, {**OLD, "fusion": None}, {**OLD, "head": {"chunk": 4}}])
def test_incomplete_settings_of_an_older_version_are_refused(tmp_path: Path, damaged: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=r"of an older version, and incomplete .*; train anew elsewhere") as caught:
        check_same(written(tmp_path, damaged), described(SAME))
    assert "\n" not in str(caught.value)
