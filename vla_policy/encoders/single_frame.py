"""A control that sees the newest frame alone. No earlier frame reaches the policy, by boxes or otherwise.

B batch, V cameras, c channels, h w grid, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.backbone import to_tokens
from vla_policy.vision import EncoderSetup, VisionEncoder


class SingleFrameEncoder(VisionEncoder):
    def __init__(self, config: None, setup: EncoderSetup) -> None:
        super().__init__(setup, grounded_frames=1)
        self.spatial = nn.Conv2d(self.backbone.channels, setup.width, 3, padding=1)
        self.project = nn.Linear(setup.width, setup.width)

    def current_tokens(self, per_frame: Tensor) -> Tensor:
        tokens: Tensor = self.project(to_tokens(F.relu(self.spatial(per_frame[:, -1]))))
        return tokens
