"""Fixtures that several folders share: small policies, untrained and saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SEEN = 32  # pixels a side of what they see


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained policy for `track`, saved: enough to run every path of the evaluation."""
    return _save_tiny(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def wrist_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, looking through the camera at the wrist."""
    return _save_tiny(tmp_path_factory.mktemp("wrist"), cameras=("wrist",))


@pytest.fixture(scope="session")
def timed_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, made to say when, and whether the target is visible."""
    from configs.policy import GroundingConfig

    grounding = GroundingConfig(interval_weight=1.0, visibility_weight=1.0)
    return _save_tiny(tmp_path_factory.mktemp("timed"), grounding=grounding)


@pytest.fixture(scope="session")
def grounding_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that only grounds whole videos, as TubeDETR does."""
    return _save_tiny(tmp_path_factory.mktemp("grounding"), **_only_grounding())


def _only_grounding() -> dict[str, Any]:
    from configs.policy import EncoderConfig, FusionConfig, GroundingConfig, HeadConfig, SlowFastConfig

    return {
        "encoder": EncoderConfig(name="slow_fast", slow_fast=SlowFastConfig(norm="post", positions="each_layer")),
        "fusion": FusionConfig(name="none"),
        "grounding": GroundingConfig(
            norm="post", positions="each_layer", extras=False, location_weight=0.0, interval_weight=1.0
        ),
        "head": HeadConfig(name="none"),
        "frame_stride": 2,
    }


@pytest.fixture
def save_tiny(tmp_path: Path) -> Callable[..., Path]:
    """Saves the same with another purpose, other cameras and other settings of the policy, or one that only grounds:
    keywords are fields of `Purpose`.
    """

    def save(
        cameras: tuple[str, ...] = ("front",),
        *,
        grounding: bool = False,
        policy: dict[str, Any] | None = None,
        **purpose: Any,
    ) -> Path:
        changes = {**(_only_grounding() if grounding else {}), **(policy or {})}
        return _save_tiny(tmp_path / "made", purpose, cameras=cameras, **changes)

    return save


def _save_tiny(folder: Path, purpose: dict[str, Any] | None = None, **changes: Any) -> Path:
    import torch

    from configs.policy import (
        BackboneConfig,
        BidirectionalConfig,
        EncoderConfig,
        FusionConfig,
        HeadConfig,
        PolicyConfig,
        TwoStreamConfig,
    )
    from envs.task import find_task
    from vla_policy.checkpoint import Checkpoint, Purpose, save_checkpoint
    from vla_policy.contract import Shapes
    from vla_policy.policy import VLAPolicy
    from vla_policy.tokenizer import WordTokenizer

    parts: dict[str, Any] = {
        "encoder": EncoderConfig(
            backbone=BackboneConfig(channels=8, layers=1), two_stream=TwoStreamConfig(temporal_channels=4)
        ),
        "fusion": FusionConfig(bidirectional=BidirectionalConfig(layers=1)),
        "head": HeadConfig(hidden=16),
    }
    config = PolicyConfig(**{"width": 16, "attention_heads": 2, "frames": 3, **parts, **changes})
    spec = find_task("track")
    fields: dict[str, Any] = {
        "tasks": ("track",),
        "action_names": spec.action_names,
        "agent_pos_names": spec.agent_pos_names,
        "control_hz": spec.control_hz,
        **(purpose or {}),
    }
    made = Purpose(**fields)
    torch.manual_seed(0)
    tokenizer = WordTokenizer.train(["follow the red ball", "track the blue cube"], config.language.max_words)
    width = len(made.agent_pos_names)
    shapes = Shapes(
        frames=config.frames,
        cameras=len(config.cameras),
        size=SEEN,
        proprioception=width,
        actions=len(made.action_names),
        vocabulary=tokenizer.size,
    )
    policy = VLAPolicy(config, shapes)
    policy.normaliser.set_statistics(torch.zeros(width), torch.ones(width))
    save_checkpoint(Checkpoint(policy.eval(), tokenizer, made, {"seed": 0}), folder / "checkpoint")
    return folder / "checkpoint"
