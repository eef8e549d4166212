"""Training that goes on from another run: its words and statistics stay, its state is taken over, its data may grow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.bc import train
from training.data.episodes import Dataset
from training.error import TrainingError
from training.start import take_over, weights_print
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main

WriteSmall = Callable[..., Dataset]
Weights = Callable[[Path], dict[str, Tensor]]
SameWeights = Callable[[Path, Path], None]
StopAt = Callable[[int], Callable[[int, int, dict[str, float]], None]]


@pytest.fixture
def short(config: TrainConfig) -> TrainConfig:
    return replace(config, steps=4, log_every=2, save_every=2)


@pytest.fixture
def first(write_small: WriteSmall, policy_config: PolicyConfig, short: TrainConfig, tmp_path: Path) -> Path:
    """A finished run, its state not yet removed."""
    train(policy_config, short, [write_small("first")], tmp_path / "first_run")
    return tmp_path / "first_run"


def state(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "state" / "state.pt", weights_only=True)
    return found


def updates(run: Path) -> set[int]:
    """How many updates the optimiser has seen."""
    return {int(each["step"]) for each in state(run)["optimizer"]["state"].values()}


def test_words_and_statistics_stay_and_all_data_are_named(
    write_small: WriteSmall, policy_config: PolicyConfig, short: TrainConfig, first: Path, tmp_path: Path
) -> None:
    more = [write_small("again"), write_small("more", seed=5, lengths=(20, 20))]
    train(policy_config, replace(short, steps=2), more, tmp_path / "second", start=first / "checkpoint")
    before, after = load_checkpoint(first / "checkpoint"), load_checkpoint(tmp_path / "second" / "checkpoint")
    assert before.policy.shapes == after.policy.shapes
    assert (first / "checkpoint/tokenizer.json").read_text() == (
        tmp_path / "second/checkpoint/tokenizer.json"
    ).read_text()
    for name, value in before.policy.normaliser.named_buffers():
        assert torch.equal(value, dict(after.policy.normaliser.named_buffers())[name])
    assert [entry["steps"] for entry in after.provenance["data"]] == [43, 40]
    assert after.provenance["start"]["steps"] == 4
    assert after.provenance["start"]["weights"] == json.loads((tmp_path / "second/config.json").read_text())["start"]


def test_optimiser_and_average_go_on_where_there_is_a_state(
    write_small: WriteSmall,
    policy_config: PolicyConfig,
    short: TrainConfig,
    first: Path,
    tmp_path: Path,
) -> None:
    data, more = write_small("again"), replace(short, steps=2, seed=2)
    train(policy_config, more, [data], tmp_path / "with", start=first / "checkpoint")
    assert updates(tmp_path / "with") == {6}
    assert int(state(tmp_path / "with")["average"]["n_averaged"]) == 6
    assert state(tmp_path / "with")["step"] == 2
    shutil.copytree(first / "checkpoint", tmp_path / "alone" / "checkpoint")
    train(policy_config, more, [data], tmp_path / "without", start=tmp_path / "alone" / "checkpoint")
    assert updates(tmp_path / "without") == {2}


def test_it_is_resumed_exactly(
    write_small: WriteSmall,
    policy_config: PolicyConfig,
    short: TrainConfig,
    first: Path,
    tmp_path: Path,
    stop_at: StopAt,
    assert_same_weights: SameWeights,
) -> None:
    data, start = [write_small("again")], first / "checkpoint"
    train(policy_config, short, data, tmp_path / "whole", start=start)
    assert train(policy_config, short, data, tmp_path / "parts", start=start, on_progress=stop_at(3)).interrupted
    train(policy_config, short, data, tmp_path / "parts", start=start, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    with pytest.raises(TrainingError, match=r"start was '.*' and is now None"):
        train(policy_config, short, data, tmp_path / "parts", resume=True)


@pytest.mark.parametrize(
    ("data", "policy", "words"),
    [
        ({"agent_pos_names": ["a", "b", "c"]}, {}, "agent_pos_names of .* differ"),
        ({"actions": ("dx", "grip")}, {}, "has action 'grip', the policy of .* gives dx, dy"),
        ({"size": 48}, {}, "was trained on size 32, the data have 48"),
        ({}, {"width": 32}, "no part of that policy fits"),
    ],
)
def test_what_does_not_fit_is_refused(
    write_small: WriteSmall,
    policy_config: PolicyConfig,
    short: TrainConfig,
    first: Path,
    tmp_path: Path,
    data: dict[str, Any],
    policy: dict[str, Any],
    words: str,
) -> None:
    other = write_small("other", **data)
    with pytest.raises(ValueError, match=words):
        train(replace(policy_config, **policy), short, [other], tmp_path / "second", start=first / "checkpoint")
    assert not (tmp_path / "second").exists()


def test_a_part_with_other_settings_begins_anew_and_the_others_stay(
    write_small: WriteSmall, policy_config: PolicyConfig, short: TrainConfig, first: Path, tmp_path: Path
) -> None:
    before = load_checkpoint(first / "checkpoint").policy
    config = replace(policy_config, head=replace(policy_config.head, blocks=1, octaves=2))
    policy, anew = take_over(first / "checkpoint", before, config, before.shapes)
    assert anew == ("head",)
    for name in ("normaliser", "encoder", "language", "fusion", "grounding"):
        kept, now = (getattr(each, name).state_dict() for each in (before, policy))
        assert kept
        assert all(torch.equal(value, now[key]) for key, value in kept.items())
    train(config, short, [write_small("again")], tmp_path / "second", start=first / "checkpoint")
    after = load_checkpoint(tmp_path / "second" / "checkpoint")
    assert after.policy.config == config
    assert after.provenance["start"]["anew"] == ["head"]
    assert updates(tmp_path / "second") == {4}  # the first run's optimiser does not know the new head


def test_the_command_begins_with_a_policy(
    write_small: WriteSmall, policy_config: PolicyConfig, first: Path, tmp_path: Path
) -> None:
    written = write_small("again")
    settings = tmp_path / "run.yaml"
    settings.write_text(yaml.safe_dump({"policy": json.loads(json.dumps(asdict(policy_config)))}))
    arguments = ["--config", str(settings), "--data", str(written.path), "--train.steps", "1"]
    assert main(["train", *arguments, "--policy-from", str(first), "--out", str(tmp_path / "second")]) == 0
    made = load_checkpoint(tmp_path / "second" / "checkpoint")
    assert made.provenance["start"] == {"weights": weights_print(first / "checkpoint"), "steps": 4}


def test_a_checkpoint_that_is_not_there_is_named(
    write_small: WriteSmall, policy_config: PolicyConfig, short: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"nowhere/model\.safetensors: missing"):
        train(policy_config, short, [write_small()], tmp_path / "run", start=tmp_path / "nowhere")
