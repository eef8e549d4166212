import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.bench import EPISODE_STEPS, PICTURE, WARM_UP, pipeline_ratio, synthetic_dataset, training_rate
from training.config import TrainConfig
from vla_policy.config import PolicyConfig
from vla_policy.contract import Shapes
from vla_policy.policy import VLAPolicy


def test_it_reports_both_rates_and_their_ratio(
    policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = pipeline_ratio(0.2, megabytes=4, policy_config=policy_config, config=config)
    assert found["batch"] == config.batch
    assert found["steps"] >= 1
    assert found["resident_samples_per_second"] > 0
    rates = found["pipeline_samples_per_second"] / found["resident_samples_per_second"]
    assert found["ratio"] == pytest.approx(rates)
    assert 0.05 < found["ratio"] < 2
    assert list(tmp_path.iterdir()) == []  # its dataset is gone


def test_both_sides_take_the_same_number_of_steps(
    policy_config: PolicyConfig, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import bench

    seen: list[int] = []
    original = bench.train_step

    def watched(*args: object) -> object:
        seen.append(id(args[2]))
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(bench, "train_step", watched)
    pipeline_ratio(0.0, megabytes=3, policy_config=policy_config, config=replace(config, batch=4))
    resident = max(set(seen), key=seen.count)
    assert seen.count(resident) == WARM_UP + 1  # the last one counts
    assert len(seen) == 2 * (WARM_UP + 1)


def test_a_network_with_more_to_do_trains_more_slowly(policy_config: PolicyConfig, config: TrainConfig) -> None:
    shapes = Shapes(frames=2, cameras=1, size=32, proprioception=4, actions=2, vocabulary=20)
    wide = replace(policy_config, encoder=replace(policy_config.encoder, channels=64))
    rates = []
    for structure in (policy_config, wide):
        policy = VLAPolicy(structure, shapes)
        policy.normaliser.set_statistics(torch.zeros(4), torch.ones(4))
        rates.append(training_rate(policy, config, steps=3))
    assert 0 < rates[1] < rates[0]


def test_the_dataset_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    data = synthetic_dataset(tmp_path / "data", 5.0, ("front", "wrist"))
    assert data.arrays["pixels"].nbytes == pytest.approx(5e6, rel=0.3)
    assert data.arrays["pixels"].shape == (data.episodes * EPISODE_STEPS, 2, PICTURE, PICTURE, 3)
    assert np.abs(data.arrays["action"]).max() <= 1
    assert isinstance(data.arrays["pixels"], np.memmap)
