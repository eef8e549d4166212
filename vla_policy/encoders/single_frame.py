"""A control: the newest frame alone. No history reaches the policy, through boxes or otherwise.

B batch, V cameras, c channels, h w grid, D width.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import EncoderConfig
from vla_policy.backbone import to_tokens
from vla_policy.contract import Shapes
from vla_policy.vision import VisionEncoder


class SingleFrameEncoder(VisionEncoder):
    def __init__(
        self, config: EncoderConfig, shapes: Shapes, width: int, heads: int, saved: Path | None = None
    ) -> None:
        super().__init__(config, shapes, width, heads, saved, looks=1)
        self.spatial = nn.Conv2d(config.channels, width, 3, padding=1)
        self.project = nn.Linear(width, width)

    def moment(self, per_frame: Tensor) -> Tensor:
        tokens: Tensor = self.project(to_tokens(F.relu(self.spatial(per_frame[:, -1]))))
        return tokens
