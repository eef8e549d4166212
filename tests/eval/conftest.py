"""A small untrained policy, saved as a checkpoint: enough to run every path of the evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.policy import (
    BackboneConfig,
    BidirectionalConfig,
    EncoderConfig,
    FusionConfig,
    GroundingConfig,
    HeadConfig,
    PolicyConfig,
    TwoStreamConfig,
)
from envs.tabletop.arm import AGENT_POS_NAMES
from vla_policy.checkpoint import Checkpoint, Purpose, save_checkpoint
from vla_policy.contract import Shapes
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import WordTokenizer

CONFIG = PolicyConfig(
    width=16,
    attention_heads=2,
    frames=3,
    encoder=EncoderConfig(
        backbone=BackboneConfig(channels=8, layers=1), two_stream=TwoStreamConfig(temporal_channels=4)
    ),
    fusion=FusionConfig(bidirectional=BidirectionalConfig(layers=1)),
    head=HeadConfig(hidden=16),
)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("policy") / "checkpoint", CONFIG)


@pytest.fixture(scope="session")
def wrist_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, looking through the camera at the wrist."""
    return save_tiny(tmp_path_factory.mktemp("wrist") / "checkpoint", replace(CONFIG, cameras=("wrist",)))


@pytest.fixture(scope="session")
def timed_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, made to say when, and whether the target is visible."""
    config = replace(CONFIG, grounding=GroundingConfig(interval_weight=1.0, visibility_weight=1.0))
    return save_tiny(tmp_path_factory.mktemp("timed") / "checkpoint", config)


def save_tiny(path: Path, config: PolicyConfig) -> Path:
    torch.manual_seed(0)
    tokenizer = WordTokenizer.train(["follow the red ball", "track the blue cube"], config.language.max_words)
    shapes = Shapes(
        frames=3, cameras=1, size=64, proprioception=len(AGENT_POS_NAMES), actions=2, vocabulary=tokenizer.size
    )
    policy = VLAPolicy(config, shapes)
    width = shapes.proprioception
    policy.normaliser.set_statistics(torch.zeros(width), torch.ones(width))
    purpose = Purpose(tasks=("track",), action_names=("dx", "dy"), agent_pos_names=AGENT_POS_NAMES)
    save_checkpoint(Checkpoint(policy.eval(), tokenizer, purpose, {"seed": 0}), path)
    return path
