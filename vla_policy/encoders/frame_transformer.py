"""Spatial encoder on every frame, then a transformer over time at every place, causal: no frame knows a later one.

B batch, T frames, V cameras, c channels, h w grid, D width.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.config import EncoderConfig
from vla_policy.contract import Shapes
from vla_policy.layers import FusedSelfAttentionBlock, newest_at_zero
from vla_policy.vision import VisionEncoder


class FrameTransformerEncoder(VisionEncoder):
    """What a place is told covers its neighbours, so that things can come and go."""

    def __init__(
        self, config: EncoderConfig, shapes: Shapes, width: int, heads: int, saved: Path | None = None
    ) -> None:
        super().__init__(config, shapes, width, heads, saved)
        self.neighbours = nn.Conv2d(config.channels, width, 3, padding=1)
        self.layers = nn.ModuleList(
            FusedSelfAttentionBlock(width, heads, causal=True) for _ in range(config.temporal_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)

    def moment(self, per_frame: Tensor) -> Tensor:
        b, t = per_frame.shape[:2]
        seen = F.relu(self.neighbours(per_frame.flatten(0, 1))).unflatten(0, (b, t))
        h, w = seen.shape[-2:]
        x = seen.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B·V·h·w, T, D)
        x = x + newest_at_zero(t, x)
        for layer in self.layers:
            x = layer(x)
        tokens: Tensor = self.project(self.norm(x[:, -1])).unflatten(0, (b, h * w))
        return tokens
