"""TubeDETR's encoder (Yang et al. 2022, section 3.2): a slow branch that encodes the text tokens together with one
frame per clip, and a fast branch that encodes every frame.

B batch, T frames in M clips of k, V cameras, n = h·w places, m places of the slow branch, L text tokens, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import SlowFastConfig
from vla_policy.backbone import to_maps, to_tokens
from vla_policy.exchange import CrossModalExchange
from vla_policy.layers import (
    FusedSelfAttentionBlock,
    SelfAttentionBlock,
    at_least_float32,
    newest_at_zero,
    place_encoding,
)
from vla_policy.tokens import LanguageTokens, VisualTokens
from vla_policy.vision import EncoderSetup, VisionEncoder


class FastBranch(nn.Module):
    """`f(v)` of every frame and `F_v = h_v + W'(h_v + f(v))`, or one of the ways that the paper compares with it.

    "none" is `h_v` alone; "gated" is `h_v + h_v ⊙ σ(f(v))`, as in the published code; "transformer" makes `f(v)` by a
    layer of self-attention over the frames of a place, "pooled" by the mean over the places of a frame.
    """

    def __init__(self, kind: str, width: int, attention_heads: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "none":
            return
        self.linear = nn.Linear(width, width)
        self.over_time = FusedSelfAttentionBlock(width, attention_heads) if kind == "transformer" else None
        self.join = None if kind == "gated" else nn.Linear(width, width)

    def forward(self, h_BTND: Tensor, x_BTND: Tensor) -> Tensor:
        """Text-aware features of the slow branch and plain ones, both of every frame → `F_v (B, T, N, D)`."""
        if self.kind == "none":
            return h_BTND
        fast = self.linear(x_BTND)
        if self.over_time is not None:
            b, t, n, _ = fast.shape
            timed = fast + newest_at_zero(t, fast.shape[-1], self.linear.weight)[:, None]
            fast = self.over_time(timed.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, n)).transpose(1, 2)
        if self.kind == "pooled":
            fast = fast.mean(2, keepdim=True)
        if self.join is None:
            return h_BTND + h_BTND * torch.sigmoid(fast)
        joined: Tensor = h_BTND + self.join(h_BTND + fast)
        return joined


class SlowFastEncoder(VisionEncoder):
    """Encodes the text tokens itself: it works with the fusion "none", and with any other fusion as well."""

    def __init__(self, config: SlowFastConfig, setup: EncoderSetup) -> None:
        super().__init__(setup)
        width, attention_heads = setup.width, setup.attention_heads
        self.frame_width = width
        self.clip, self.pick, self.stride = config.clip, config.pick, config.stride
        self.embed = nn.Linear(setup.backbone.channels, width)
        self.slow = nn.ModuleList(SelfAttentionBlock(width, attention_heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.fast = FastBranch(config.fast, width, attention_heads)

    def forward(self, frames: Tensor, exchange: CrossModalExchange | None = None) -> VisualTokens:
        features = self.encode_frames(frames, exchange)
        b, v, t = frames.shape[0], frames.shape[2], features.shape[1]
        grid = (features.shape[3], features.shape[4])
        x_BTVnD = self.embed(to_tokens(features.flatten(0, 1))).unflatten(0, (b, v, t)).transpose(1, 2)
        text = None if exchange is None else exchange.encoded_text()
        chosen, clip_of = self.clips(t, frames.device)
        places, text_BMLD, attention = self._slow(x_BTVnD[:, chosen], text, grid)
        joined = self.fast(places[:, clip_of].flatten(2, 3), x_BTVnD.flatten(2, 3))
        place = self.place(place_encoding(grid, joined.shape[-1], self.place.weight))
        newest = joined[:, -1:].unflatten(2, (v, -1)) + self.camera + place
        changed = None
        if text is not None and text_BMLD is not None:
            changed = LanguageTokens(tokens=text_BMLD[:, clip_of], mask=text.mask)
        return VisualTokens(fused=newest.flatten(2, 3), frames=joined, grid=grid, text=changed, attention=attention)

    def clips(self, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Index of the frame that stands for each of the M clips, `(M,)`, and of each frame's clip, `(T,)`.

        The last clip is shorter where k does not divide T.
        """
        starts = torch.arange(0, frames, self.clip, device=device)
        lengths = (frames - starts).clamp(max=self.clip)
        if self.pick == "random" and self.training:
            within = (torch.rand(len(starts), device=device) * lengths).long()
        else:
            within = torch.zeros_like(starts) if self.pick == "first" else lengths // 2
        return starts + within, torch.arange(frames, device=device) // self.clip

    def _slow(
        self, x_BMVnD: Tensor, text: LanguageTokens | None, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """One frame per clip and the text tokens through the transformer → `(B, M, V, n, D)` and `(B, M, L, D)`."""
        b, m, v, _, width = x_BMVnD.shape
        maps = to_maps(x_BMVnD.flatten(0, 2), grid)
        if self.stride > 1:
            maps = F.avg_pool2d(maps, self.stride, ceil_mode=True)
        coarse = (maps.shape[2], maps.shape[3])
        position = self.place(place_encoding(coarse, width, self.place.weight))
        places = (to_tokens(maps).unflatten(0, (b * m, v)) + self.camera + position).flatten(1, 2)
        count, mask = places.shape[1], None
        if text is not None:
            tokens = text.tokens.repeat_interleave(m, dim=0)
            places = torch.cat([places, tokens.to(places.dtype)], dim=1)
            mask = torch.cat([text.mask.new_ones(places.shape[0], count), text.mask.repeat_interleave(m, dim=0)], dim=1)
        attention = {}
        for i, layer in enumerate(self.slow):
            places, weights = layer(places, mask)
            if text is not None:
                newest = weights.unflatten(0, (b, m))[:, -1, :, count:, :count]
                attention[f"slow_language_reads_vision_{i}"] = self._enlarged(newest, coarse, grid, v)
        places = self.norm(places).unflatten(0, (b, m))
        fine = to_maps(places[:, :, :count].unflatten(2, (v, -1)).flatten(0, 2), coarse)
        if self.stride > 1:
            fine = F.interpolate(fine, scale_factor=self.stride, mode="nearest")[..., : grid[0], : grid[1]]
        encoded = None if text is None else places[:, :, count:]
        return to_tokens(fine).unflatten(0, (b, m, v)), encoded, attention

    def _enlarged(self, weights: Tensor, coarse: tuple[int, int], grid: tuple[int, int], cameras: int) -> Tensor:
        """Attention of text tokens to coarse places `(B, M, L, V·m)`, spread over the backbone's places; sums to 1."""
        at = at_least_float32(weights).unflatten(-1, (cameras, *coarse))
        for axis in (-2, -1):
            at = at.repeat_interleave(self.stride, dim=axis)
        fine = at[..., : grid[0], : grid[1]].flatten(-3)
        return fine / fine.sum(-1, keepdim=True).clamp(min=1e-12)
