"""Two-stream encoder: `f_s = Spatial(I_T)`, `f_t = Temporal(I_1..I_T)`, `f_st = Fusion(f_s, f_t)`
(Simonyan & Zisserman 2014, with learned features in place of optical flow).

B batch, T frames, V cameras, C H W image, c channels, h w grid, N = V·h·w, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.backbone import ResidualConv, SmallBackbone
from vla_policy.config import EncoderConfig
from vla_policy.contract import Shapes
from vla_policy.tokens import VisualTokens


class TemporalStream(nn.Module):
    """Motion around every place of the newest frame, from the features of all T frames.

    The frames' features, reduced in width, lie side by side as channels, so that one convolution compares places
    across time at a cost that hardly grows with T; a coarse level sees how far something went in the whole window.
    """

    def __init__(self, channels: int, frames: int, reduced: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.join = nn.Conv2d(reduced * frames, width, 3, padding=1)
        coarse = width * 3 // 2
        self.down = nn.Conv2d(width, coarse, 4, stride=2, padding=1)
        self.coarse = ResidualConv(coarse, 2)
        self.up = nn.Conv2d(coarse, width, 1)
        self.fine = ResidualConv(width, 1)

    def forward(self, features_btchw: Tensor) -> Tensor:
        """Features `(B', T, c, h, w)` → motion map `(B', width, h, w)`."""
        b, t = features_btchw.shape[:2]
        reduced = self.reduce(features_btchw.flatten(0, 1)).unflatten(0, (b, t))
        # Through (b, h, w, t, c), so that the joined map is channels_last without a hidden copy.
        joined = reduced.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2)
        fine = F.relu(self.join(joined))
        coarse = self.coarse(F.relu(self.down(fine)))
        return self.fine(fine + F.interpolate(self.up(coarse), size=fine.shape[-2:], mode="nearest"))


class TwoStreamEncoder(nn.Module):
    """Tokens of the newest moment that carry what is where (spatial stream) and how it moves (temporal stream)."""

    def __init__(self, config: EncoderConfig, shapes: Shapes, width: int) -> None:
        super().__init__()
        self.backbone = SmallBackbone(config.channels, config.layers)
        c = config.channels
        self.frame_width = c
        self.spatial = nn.Conv2d(c, width, 3, padding=1)
        self.temporal = TemporalStream(c, shapes.frames, config.temporal_channels, width)
        # Projecting the concatenation [f_s; f_t] is adding two projections, without the joined copy.
        self.from_spatial, self.from_temporal = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.camera = nn.Parameter(torch.zeros(shapes.cameras, 1, width))

    def forward(self, frames: Tensor) -> VisualTokens:
        b, t, v = frames.shape[:3]
        pictures = frames.permute(0, 2, 1, 3, 4, 5).flatten(0, 2).float().div_(255.0)
        features = self.backbone(pictures.contiguous(memory_format=torch.channels_last))
        h, w = features.shape[-2:]
        per_frame = features.unflatten(0, (b * v, t))
        spatial = F.relu(self.spatial(per_frame[:, -1]))
        motion = self.temporal(per_frame)
        joined = self.from_spatial(_to_tokens(spatial)) + self.from_temporal(_to_tokens(motion))
        fused = joined.unflatten(0, (b, v)) + self.camera
        looks = _to_tokens(features).unflatten(0, (b, v, t)).transpose(1, 2)
        return VisualTokens(fused=fused.flatten(1, 2).unsqueeze(1), frames=looks.flatten(2, 3), grid=(h, w))


def _to_tokens(maps: Tensor) -> Tensor:
    """`(B', c, h, w)` → `(B', h·w, c)`; free of copies for channels_last maps."""
    return maps.flatten(2).transpose(1, 2)
