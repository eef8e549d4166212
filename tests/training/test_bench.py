import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.bench import EPISODE_STEPS, PICTURE, WARM_UP, pipeline_ratio, synthetic_dataset, training_rate
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
    assert found["ratio"] > 0
    left = [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]  # a cache of torch's own
    assert left == []  # its dataset is gone


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


def test_the_training_rate_is_that_of_the_median_step_after_the_warm_up(
    policy_config: PolicyConfig, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import bench

    several = replace(policy_config.grounding, things=("target", "goal"), cameras="all")  # a tube each, in each camera
    shapes = Shapes(frames=2, cameras=2, size=32, proprioception=4, actions=2, vocabulary=20)
    policy = VLAPolicy(replace(policy_config, cameras=("front", "wrist"), grounding=several), shapes)
    policy.normaliser.set_statistics(torch.zeros(4), torch.ones(4))
    clock, lasting = [0.0], iter([100.0] * WARM_UP + [2.0, 8.0, 4.0])
    original = bench.train_step

    def timed(*args: object) -> object:
        clock[0] += next(lasting)
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(bench, "train_step", timed)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    before = {name: value.clone() for name, value in policy.named_parameters()}
    assert training_rate(policy, config, steps=3) == config.batch / 4
    assert any(not torch.equal(value, before[name]) for name, value in policy.named_parameters())  # it did train


def test_the_dataset_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    data = synthetic_dataset(tmp_path / "data", 5.0, ("front", "wrist"))
    assert data.arrays["pixels"].nbytes == pytest.approx(5e6, rel=0.3)
    assert data.arrays["pixels"].shape == (data.episodes * EPISODE_STEPS, 2, PICTURE, PICTURE, 3)
    assert np.abs(data.arrays["action"]).max() <= 1
    assert isinstance(data.arrays["pixels"], np.memmap)
