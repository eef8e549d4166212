from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from configs.collect import SHARD_EPISODES, CollectConfig
from configs.policy import (
    BackboneConfig,
    BidirectionalConfig,
    EncoderConfig,
    FusionConfig,
    HeadConfig,
    LanguageConfig,
    PolicyConfig,
    TwoStreamConfig,
)
from configs.training import TrainConfig
from training.data.episodes import Dataset
from vla_policy.contract import Batch


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """Settings of `collected`: two shards."""
    return {"episodes": SHARD_EPISODES + 3, "size": 16, "noise": 0.6, "workers": 1}


@pytest.fixture(scope="session")
def collected(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two shards of `reach`, whose episodes are the shortest, collected without interruption by one worker."""
    from training.collect import collect

    return collect("reach", CollectConfig(**small), tmp_path_factory.mktemp("collected") / "data")


@pytest.fixture
def policy_config() -> PolicyConfig:
    return PolicyConfig(
        encoder=EncoderConfig(
            backbone=BackboneConfig(channels=8, layers=1), two_stream=TwoStreamConfig(temporal_channels=4)
        ),
        language=LanguageConfig(max_words=8),
        fusion=FusionConfig(bidirectional=BidirectionalConfig(layers=1)),
        head=HeadConfig(chunk=2, hidden=32),
        width=16,
        attention_heads=2,
        frames=2,
        frame_stride=2,
        history_dropout=0.1,
        proprioception_dropout=0.1,
    )


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(
        steps=12, batch=8, warmup=2, threads=1, device="cpu", log_every=3, save_every=5, holdout=0.25, seed=1
    )


@pytest.fixture
def weights() -> Callable[[Path], dict[str, Tensor]]:
    """Reads the weights of a run's checkpoint."""
    return lambda run: load_file(run / "checkpoint" / "model.safetensors")


@pytest.fixture
def assert_same_weights(weights: Callable[[Path], dict[str, Tensor]]) -> Callable[[Path, Path], None]:
    def check(a: Path, b: Path) -> None:
        first, second = weights(a), weights(b)
        assert set(first) == set(second)
        assert [name for name in first if not torch.equal(first[name], second[name])] == []

    return check


@pytest.fixture
def stop_at() -> Callable[[int], Callable[[int, int, dict[str, float]], None]]:
    """Makes a progress callback that sends this process the signal a shell or a scheduler would."""

    def at(step: int) -> Callable[[int, int, dict[str, float]], None]:
        def act(done: int, _steps: int, _row: dict[str, float]) -> None:
            if done == step:
                os.kill(os.getpid(), signal.SIGTERM)

        return act

    return at


@pytest.fixture
def flat() -> Callable[[Batch], dict[str, Tensor]]:
    """Names a batch's tensors."""

    def tensors(batch: Batch) -> dict[str, Tensor]:
        seen = batch.observation
        return {
            "frames": seen.frames,
            "agent_pos": seen.agent_pos,
            "tokens": seen.tokens,
            "token_mask": seen.token_mask,
            "action": batch.action,
            "action_mask": batch.action_mask,
            "boxes": batch.boxes,
            "visible": batch.visible,
            "event": batch.event,
        }

    return tensors
