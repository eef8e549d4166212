"""TubeDETR's encoder (Yang et al. 2022, section 3.2): a slow branch that encodes the text tokens together with one
frame per clip, and a fast branch that encodes every frame.

Where it differs from the published network by default, a setting of `SlowFastConfig` leads there; docs/tubedetr.md
lists them.

B batch, T frames in M clips of k, V cameras, n = h·w places, m places of the slow branch, L text tokens, D width.
"""

from __future__ import annotations

from contextlib import nullcontext

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
    interleaved_sinusoid,
    newest_at_zero,
    place_encoding,
    sine_places,
    start_with_xavier,
)
from vla_policy.tokens import LanguageTokens, Padding, VisualTokens
from vla_policy.vision import EncoderSetup, VisionEncoder


class PublishedOverTime(nn.Module):
    """`f(v)` by a layer of self-attention over the frames of a place as in the published code: norm after each part,
    the frames' times added to queries and keys, and a last norm.
    """

    def __init__(self, width: int, attention_heads: int, ratio: float, dropout: float) -> None:
        super().__init__()
        self.layer = SelfAttentionBlock(width, attention_heads, ratio, norm="post", dropout=dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTND: Tensor, mask_BT: Tensor | None) -> Tensor:
        b, t, n, width = x_BTND.shape
        times = interleaved_sinusoid(torch.arange(t, device=x_BTND.device), width).to(x_BTND.dtype)
        mask = None if mask_BT is None else mask_BT.repeat_interleave(n, dim=0)
        mixed, _ = self.layer(x_BTND.transpose(1, 2).flatten(0, 1), mask, times)
        normed: Tensor = self.norm(mixed)
        return normed.unflatten(0, (b, n)).transpose(1, 2)


class FastBranch(nn.Module):
    """`f(v)` of every frame and `F_v = h_v + W'(h_v + f(v))`, or one of the ways that the paper compares with it.

    "none" is `h_v` alone, "noslow" `f(v)` alone; "gated" is `h_v + h_v ⊙ σ(f(v))`, as in the published code;
    "transformer" makes `f(v)` by a layer of self-attention over the frames of a place, "published_transformer" by the
    published one, "pooled" by the mean over the places of a frame.
    """

    def __init__(self, config: SlowFastConfig, width: int, attention_heads: int) -> None:
        super().__init__()
        kind = self.kind = config.fast
        if kind == "none":
            return
        published = kind == "published_transformer"
        self.linear = nn.Identity() if published else nn.Linear(width, width)
        self.over_time: nn.Module | None = None
        if kind == "transformer":
            self.over_time = FusedSelfAttentionBlock(width, attention_heads)
        elif published:
            self.over_time = PublishedOverTime(width, attention_heads, config.feed_ratio, config.dropout)
        self.join = None if kind in ("gated", "noslow") else nn.Linear(width, width)
        if config.positions == "each_layer":  # as published: the slow branch alone speaks at first
            starts_at_zero = self.linear if kind == "gated" else self.join
            for parameter in () if starts_at_zero is None else starts_at_zero.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, h_BTND: Tensor, x_BTND: Tensor, mask_BT: Tensor | None = None, places_BN: Tensor | None = None
    ) -> Tensor:
        """Text-aware features of the slow branch and plain ones, both of every frame → `F_v (B, T, N, D)`.

        Args:
            mask_BT, places_BN: False for frames and for places that are padding.
        """
        if self.kind == "none":
            return h_BTND
        fast: Tensor = self.linear(x_BTND)
        if self.kind == "noslow":
            return fast
        if isinstance(self.over_time, PublishedOverTime):
            fast = self.over_time(fast, mask_BT)
        elif self.over_time is not None:
            b, t, n, width = fast.shape
            timed = fast + newest_at_zero(t, width, next(self.linear.parameters()))[:, None]
            fast = self.over_time(timed.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, n)).transpose(1, 2)
        if self.kind == "pooled":
            weights = None if places_BN is None else places_BN[:, None, :, None].to(fast.dtype)
            if weights is None:
                fast = fast.mean(2, keepdim=True)
            else:
                fast = (fast * weights).sum(2, keepdim=True) / weights.sum(2, keepdim=True)
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
        self.each_layer, self.fast_gradient = config.positions == "each_layer", config.fast_gradient
        self.embed = nn.Linear(self.backbone.channels, width)
        layers = 0 if config.fast == "noslow" else config.layers
        self.slow = nn.ModuleList(
            SelfAttentionBlock(width, attention_heads, config.feed_ratio, norm=config.norm, dropout=config.dropout)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width) if config.last_norm and layers else nn.Identity()
        self.fast = FastBranch(config, width, attention_heads)
        if self.each_layer:  # places are told by fixed encodings, one camera needs no name
            self.place = nn.Identity()
            self.camera.requires_grad_(setup.shapes.cameras > 1)
            start_with_xavier(self.slow)
        if config.fast == "noslow" and not config.fast_gradient:
            self.backbone.requires_grad_(False)  # nothing that it is trained by is left

    def forward(
        self, frames: Tensor, exchange: CrossModalExchange | None = None, padding: Padding | None = None
    ) -> VisualTokens:
        with nullcontext() if self.fast_gradient else torch.no_grad():
            features = self.encode_frames(frames, exchange)
        b, v, t = frames.shape[0], frames.shape[2], features.shape[1]
        grid = (features.shape[3], features.shape[4])
        x_BTVnD = self._embedded(features, b)
        text = None if exchange is None else exchange.encoded_text()
        chosen, clip_of = self.clips(t, frames.device)
        slow_BMVnD = x_BTVnD[:, chosen]
        if not self.fast_gradient and torch.is_grad_enabled() and self.slow:
            # Once more with gradients, but the clips' frames alone: they are few, and all that the backbone learns by.
            slow_BMVnD = self._embedded(self.encode_frames(frames[:, chosen], None), b)
        mask = None if padding is None else padding.places(grid)
        places, text_BMLD, attention = self._slow(slow_BMVnD, text, grid, mask)
        joined = self.fast(
            places[:, clip_of].flatten(2, 3),
            x_BTVnD.flatten(2, 3),
            None if padding is None else padding.frames,
            None if mask is None else mask.flatten(1).repeat(1, v),
        )
        newest = joined[:, -1:]
        if not self.each_layer:
            place = self.place(place_encoding(grid, joined.shape[-1], self.camera))
            newest = (newest.unflatten(2, (v, -1)) + self.camera + place).flatten(2, 3)
        changed = None
        if text is not None and text_BMLD is not None:
            changed = LanguageTokens(tokens=text_BMLD[:, clip_of], mask=text.mask)
        return VisualTokens(
            fused=newest,
            frames=joined,
            grid=grid,
            text=changed,
            attention=attention,
            padding=padding,
        )

    def _embedded(self, features: Tensor, batch: int) -> Tensor:
        """The backbone's features `(B·V, T, c, h, w)` as tokens `(B, T, V, n, D)`."""
        tokens: Tensor = self.embed(to_tokens(features.flatten(0, 1)))
        return tokens.unflatten(0, (batch, -1, features.shape[1])).transpose(1, 2)

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
        self, x_BMVnD: Tensor, text: LanguageTokens | None, grid: tuple[int, int], mask_Bhw: Tensor | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """One frame per clip and the text tokens through the transformer → `(B, M, V, n, D)` and `(B, M, L, D)`."""
        b, m, v, _, width = x_BMVnD.shape
        maps = to_maps(x_BMVnD.flatten(0, 2), grid)
        if self.stride > 1:
            maps = F.avg_pool2d(maps, self.stride, ceil_mode=True)
            if mask_Bhw is not None:
                mask_Bhw = F.max_pool2d(mask_Bhw.float(), self.stride, ceil_mode=True).bool()
        coarse = (maps.shape[2], maps.shape[3])
        places = to_tokens(maps).unflatten(0, (b * m, v))
        position = None
        if self.each_layer:
            shown = torch.ones(1, *coarse, dtype=torch.bool, device=maps.device) if mask_Bhw is None else mask_Bhw
            position = sine_places(shown, width).to(places.dtype)[:, None] + self.camera
            position = position.flatten(1, 2).repeat_interleave(1 if mask_Bhw is None else m, dim=0)
        else:
            places = places + self.camera + self.place(place_encoding(coarse, width, self.camera))
        places = places.flatten(1, 2)
        count, mask = places.shape[1], None
        if mask_Bhw is not None:
            mask = mask_Bhw.flatten(1).repeat(1, v).repeat_interleave(m, dim=0)
        if text is not None:
            tokens = text.tokens.repeat_interleave(m, dim=0)
            seen = text.mask.new_ones(places.shape[0], count) if mask is None else mask
            places = torch.cat([places, tokens.to(places.dtype)], dim=1)
            mask = torch.cat([seen, text.mask.repeat_interleave(m, dim=0)], dim=1)
            if position is not None:
                position = F.pad(position, (0, 0, 0, tokens.shape[1]))
        attention = {}
        for i, layer in enumerate(self.slow):
            places, weights = layer(places, mask, position)
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
