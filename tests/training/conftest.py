from __future__ import annotations

import pytest
import torch

from training.config import TrainConfig
from vla_policy.config import EncoderConfig, FusionConfig, HeadConfig, LanguageConfig, PolicyConfig

torch.set_num_threads(1)


@pytest.fixture
def policy_config() -> PolicyConfig:
    return PolicyConfig(
        encoder=EncoderConfig(channels=8, layers=1, temporal_channels=4),
        language=LanguageConfig(max_words=8),
        fusion=FusionConfig(layers=1),
        head=HeadConfig(chunk=2, hidden=32),
        width=16,
        heads=2,
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
