"""Attention over the tokens of all frames, `softmax(QKᵀ/√d)V`: over space and time jointly, or divided into time, then
space (Bertasius et al. 2021, TimeSformer).

B batch, T frames, V cameras, c channels, h w grid, n = h/2·w/2 tokens a frame, D width.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.backbone import to_maps, to_tokens
from vla_policy.config import EncoderConfig
from vla_policy.contract import Shapes
from vla_policy.layers import FusedSelfAttentionBlock, newest_at_zero, place_encoding
from vla_policy.vision import VisionEncoder


class DividedBlock(nn.Module):
    """Each token attends to its place in all frames, then to all places in its frame. Memory grows linearly with T."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.time = FusedSelfAttentionBlock(width, heads, feed=False)
        self.space = FusedSelfAttentionBlock(width, heads)

    def forward(self, x_BTnD: Tensor) -> Tensor:
        b, t, n = x_BTnD.shape[:3]
        by_place = self.time(x_BTnD.transpose(1, 2).flatten(0, 1))
        by_frame = by_place.unflatten(0, (b, n)).transpose(1, 2).flatten(0, 1)
        mixed: Tensor = self.space(by_frame).unflatten(0, (b, t))
        return mixed


class JointBlock(nn.Module):
    """Each token attends to all places in all frames."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.space_time = FusedSelfAttentionBlock(width, heads)

    def forward(self, x_BTnD: Tensor) -> Tensor:
        mixed: Tensor = self.space_time(x_BTnD.flatten(1, 2)).unflatten(1, x_BTnD.shape[1:3])
        return mixed


class SpaceTimeAttentionEncoder(VisionEncoder):
    """Attention works at half the backbone's resolution; its result for the newest frame is added to that frame."""

    def __init__(
        self, config: EncoderConfig, shapes: Shapes, width: int, heads: int, saved: Path | None = None
    ) -> None:
        super().__init__(config, shapes, width, heads, saved)
        block = {"joint": JointBlock, "divided": DividedBlock}[config.attention]
        self.down = nn.Conv2d(config.channels, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(block(width, heads) for _ in range(config.temporal_layers))
        self.norm = nn.LayerNorm(width)
        self.spatial = nn.Conv2d(config.channels, width, 3, padding=1)
        self.project = nn.Linear(2 * width, width)

    def moment(self, per_frame: Tensor) -> Tensor:
        b, t = per_frame.shape[:2]
        coarse = F.relu(self.down(per_frame.flatten(0, 1)))
        grid = (coarse.shape[2], coarse.shape[3])
        x = to_tokens(coarse).unflatten(0, (b, t))
        x = x + place_encoding(grid, x.shape[-1], x.device) + newest_at_zero(t, x)[:, None]
        for block in self.blocks:
            x = block(x)
        newest = per_frame[:, -1]
        attended = F.interpolate(to_maps(self.norm(x[:, -1]), grid), size=newest.shape[-2:], mode="nearest")
        near = to_tokens(F.relu(self.spatial(newest)))
        tokens: Tensor = self.project(torch.cat([near, to_tokens(attended).to(near.dtype)], dim=-1))
        return tokens
