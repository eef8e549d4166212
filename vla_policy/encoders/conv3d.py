"""Convolutions over time and space together, `(f*g)(t,h,w) = Σ f(t-i, h-j, w-k) g(i,j,k)` (Tran et al. 2015).

B batch, T frames, V cameras, c channels, h w grid, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import Conv3dConfig
from vla_policy.backbone import to_tokens
from vla_policy.layers import at_least_float32
from vla_policy.vision import EncoderSetup, VisionEncoder


class Conv3dEncoder(VisionEncoder):
    """Causal in time: a frame depends on no later frame, and frames before the first one are zero. In space every
    other layer works at half resolution; otherwise an object that moves one cell per frame would leave the kernel.
    """

    def __init__(self, config: Conv3dConfig, setup: EncoderSetup) -> None:
        super().__init__(setup)
        self.frames, cells = config.kernel
        kernel, space = (self.frames, cells, cells), (0, cells // 2, cells // 2)
        width = setup.width
        self.first = nn.Conv3d(self.backbone.channels, width, kernel, padding=space)
        self.layers = nn.ModuleList(nn.Conv3d(width, width, kernel, padding=space) for _ in range(config.layers))
        self.project = nn.Linear(width, width)

    def current_tokens(self, per_frame: Tensor) -> Tensor:
        fine = F.relu(self._over_time(self.first, per_frame.transpose(1, 2)))
        for number, layer in enumerate(self.layers):
            if number % 2 == 0:
                # CPUs have no such pooling in half precision.
                pooled = F.avg_pool3d(at_least_float32(fine), (1, 2, 2), ceil_mode=True).to(fine.dtype)
                coarse = F.relu(self._over_time(layer, pooled))
                fine = fine + F.interpolate(coarse, size=fine.shape[2:], mode="nearest")
            else:
                fine = F.relu(fine + self._over_time(layer, fine))
        tokens: Tensor = self.project(to_tokens(fine[:, :, -1]))
        return tokens

    def _over_time(self, conv: nn.Module, x: Tensor) -> Tensor:
        """`(B·V, c, T, h, w)` → `(B·V, D, T, h, w)`."""
        padded = F.pad(x, (0, 0, 0, 0, self.frames - 1, 0))
        convolved: Tensor = conv(padded.contiguous(memory_format=torch.channels_last_3d))
        return convolved
