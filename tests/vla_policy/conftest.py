from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.policy import EncoderConfig, FusionConfig, GroundingConfig, HeadConfig, LanguageConfig, PolicyConfig
from vla_policy.contract import Shapes
from vla_policy.policy import VLAPolicy

torch.set_num_threads(1)

MakePolicy = Callable[..., VLAPolicy]


@pytest.fixture
def shapes() -> Shapes:
    return Shapes(frames=3, cameras=1, size=32, proprioception=4, actions=3, vocabulary=40)


@pytest.fixture
def small() -> PolicyConfig:
    """A policy of every part's smallest size."""
    return PolicyConfig(
        encoder=EncoderConfig(channels=8, layers=1, temporal_channels=4),
        language=LanguageConfig(max_words=12),
        fusion=FusionConfig(layers=1),
        grounding=GroundingConfig(layers=1),
        head=HeadConfig(chunk=2, hidden=16),
        width=16,
        heads=2,
        frames=3,
    )


@pytest.fixture
def make_policy(small: PolicyConfig, shapes: Shapes, text_models: dict[str, Path]) -> MakePolicy:
    """Builds a small policy with statistics. All weights are moved: nothing hides behind those that start at zero."""

    def make(
        *,
        encoder: str = "two_stream",
        fusion: str = "bidirectional",
        head: str = "chunk_l1",
        language: str = "transformer",
        frozen: bool = True,
        options: dict[str, dict[str, Any]] | None = None,
        seed: int = 0,
        shapes: Shapes = shapes,
        **changes: Any,
    ) -> VLAPolicy:
        text: dict[str, Any] = {"name": language, "max_words": small.language.max_words}
        if language == "pretrained":
            text |= {"pretrained": str(text_models["bert"]), "frozen": frozen}
        options = options or {}
        config = replace(
            small,
            encoder=replace(small.encoder, name=encoder, **options.get("encoder", {})),
            fusion=replace(small.fusion, name=fusion, **options.get("fusion", {})),
            head=replace(small.head, name=head, **options.get("head", {})),
            language=LanguageConfig(**text),
            **changes,
        )
        torch.manual_seed(seed)
        policy = VLAPolicy(config, shapes)
        policy.normaliser.set_statistics(torch.full((4,), 0.5), torch.full((4,), 0.3))
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return policy

    return make
