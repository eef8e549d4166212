"""Two-stream encoder: `f_s = Spatial(I_T)`, `f_t = Temporal(I_1..I_T)`, `f_st = Fusion(f_s, f_t)`
(Simonyan & Zisserman 2014, with learned features in place of optical flow).

B batch, T frames, V cameras, c channels, h w grid, n = h·w, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import TwoStreamConfig
from vla_policy.backbone import ResidualConv, to_tokens
from vla_policy.layers import Attention
from vla_policy.vision import EncoderSetup, VisionEncoder


class TemporalStream(nn.Module):
    """Motion around every place of the newest frame, from the features of all T frames.

    The features of all frames are reduced in width and concatenated as channels. So one convolution compares frames at
    a cost that hardly grows with T. A coarse level covers longer movements.
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
        """Features `(B', T, c, h, w)` → motion map `(B', width, h, w)`.

        Raises:
            ValueError: there is but one row or column of places.
        """
        b, t, _, h, w = features_btchw.shape
        if min(h, w) < 2:
            raise ValueError(
                f"encoder.name 'two_stream' got {h} x {w} places per picture, expected 2 x 2 or more; "
                "lower encoder.backbone.timm.stride, or take larger pictures"
            )
        reduced = self.reduce(features_btchw.flatten(0, 1)).unflatten(0, (b, t))
        # Through (b, h, w, t, c), so that the joined map is channels_last without a hidden copy.
        joined = reduced.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2)
        fine = F.relu(self.join(joined))
        coarse = self.coarse(F.relu(self.down(fine)))
        fine = fine + F.interpolate(self.up(coarse), size=fine.shape[-2:], mode="nearest")
        motion: Tensor = self.fine(fine)
        return motion


class ConcatStreams(nn.Module):
    """`W [f_s; f_t] + b`, as two projections that are added: without the joined copy."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.from_spatial, self.from_temporal = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, spatial_BnD: Tensor, temporal_BnD: Tensor) -> Tensor:
        joined: Tensor = self.from_spatial(spatial_BnD) + self.from_temporal(temporal_BnD)
        return joined


class SumStreams(nn.Module):
    """`f_s + f_t`, without parameters."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()

    def forward(self, spatial_BnD: Tensor, temporal_BnD: Tensor) -> Tensor:
        return spatial_BnD + temporal_BnD


class GatedStreams(nn.Module):
    """`g ⊙ f_s + (1 - g) ⊙ f_t` with `g = σ(W [f_s; f_t] + b)` (Arevalo et al. 2017)."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.gate = ConcatStreams(width, attention_heads)

    def forward(self, spatial_BnD: Tensor, temporal_BnD: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(spatial_BnD, temporal_BnD))
        return gate * spatial_BnD + (1 - gate) * temporal_BnD


class CrossAttentionStreams(nn.Module):
    """`f_s + CA(f_s, f_t, f_t)` over the places. The motion at the same place is added: attention finds places by their
    content, not by their position.
    """

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.norm_spatial, self.norm_temporal = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, attention_heads)

    def forward(self, spatial_BnD: Tensor, temporal_BnD: Tensor) -> Tensor:
        attended, _ = self.attention(self.norm_spatial(spatial_BnD), self.norm_temporal(temporal_BnD))
        joined: Tensor = spatial_BnD + temporal_BnD + attended
        return joined


STREAMS = {
    "concat": ConcatStreams,
    "sum": SumStreams,
    "gated": GatedStreams,
    "cross_attention": CrossAttentionStreams,
}


class TwoStreamEncoder(VisionEncoder):
    """Current tokens that carry what is where (spatial stream) and how it moves (temporal stream)."""

    def __init__(self, config: TwoStreamConfig, setup: EncoderSetup) -> None:
        super().__init__(setup)
        c, width = self.backbone.channels, setup.width
        self.spatial = nn.Conv2d(c, width, 3, padding=1)
        self.temporal = TemporalStream(c, setup.shapes.frames, config.temporal_channels, width)
        self.streams = STREAMS[config.streams](width, setup.attention_heads)

    def current_tokens(self, per_frame: Tensor) -> Tensor:
        spatial = F.relu(self.spatial(per_frame[:, -1]))
        tokens: Tensor = self.streams(to_tokens(spatial), to_tokens(self.temporal(per_frame)))
        return tokens
