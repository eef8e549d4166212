"""Spatial encoder on every frame, then a long short-term memory over time at every place.

B batch, T frames, V cameras, c channels, h w grid, D width.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.config import EncoderConfig
from vla_policy.contract import Shapes
from vla_policy.vision import VisionEncoder


class FrameLSTMEncoder(VisionEncoder):
    """Hochreiter & Schmidhuber 1997, one memory a place with shared weights: pooling the frame into one vector first
    would forget where things are. What a place is told covers its neighbours, so that things can come and go.
    """

    def __init__(
        self, config: EncoderConfig, shapes: Shapes, width: int, heads: int, saved: Path | None = None
    ) -> None:
        super().__init__(config, shapes, width, heads, saved)
        self.neighbours = nn.Conv2d(config.channels, width, 3, padding=1)
        self.lstm = nn.LSTM(width, width, num_layers=config.temporal_layers, batch_first=True)
        self.project = nn.Linear(2 * width, width)

    def moment(self, per_frame: Tensor) -> Tensor:
        b, t = per_frame.shape[:2]
        seen = F.relu(self.neighbours(per_frame.flatten(0, 1))).unflatten(0, (b, t))
        h, w = seen.shape[-2:]
        by_place = seen.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B·V·h·w, T, D)
        remembered = self.lstm(by_place)[0][:, -1].unflatten(0, (b, h * w))
        newest = by_place[:, -1].unflatten(0, (b, h * w))
        tokens: Tensor = self.project(torch.cat([newest, remembered.to(newest.dtype)], dim=-1))
        return tokens
