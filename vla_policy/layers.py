"""Layers that several parts share: attention, feed-forward, position encodings, pooling.

B batch, N Q K tokens, D width, M attention heads, E = D/M their width, C O widths of input and
output. Suffixes name the axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT = 64  # tokens: up to here plain products are faster on a CPU than the fused kernel


class Attention(nn.Module):
    """Multi-head attention, `softmax(QKᵀ/√d)V` (Vaswani et al. 2017, eq. 1), with its weights as second output.

    Computed in the order that projects the shorter of the two sequences: with few keys, the query and output matrices
    are first multiplied into keys and values; with few queries, the key and value matrices into the queries. The
    result is the same, the long sequence is never projected nor its heads transposed, and that halves the cost of a
    picture's tokens reading a sentence.

    Args:
        query_width, key_width, out_width: last axes of the queries that come, the keys that come and the output,
            where they are not D.
    """

    def __init__(
        self,
        width: int,
        attention_heads: int,
        *,
        query_width: int | None = None,
        key_width: int | None = None,
        out_width: int | None = None,
    ) -> None:
        super().__init__()
        if width % attention_heads:
            raise ValueError(f"width {width} must be a multiple of attention_heads {attention_heads}")
        self.attention_heads = attention_heads
        self.q = nn.Linear(query_width or width, width)
        # A bias on the keys adds the same to all scores of a query, which softmax ignores.
        self.k = nn.Linear(key_width or width, width, bias=False)
        self.v = nn.Linear(key_width or width, width)
        self.out = nn.Linear(width, out_width or width)

    def forward(self, query_BQC: Tensor, key_BKC: Tensor, mask_BK: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns output `(B, Q, out_width)` and weights `(B, M, Q, K)`; keys with a False mask get weight zero."""
        if query_BQC.shape[1] > key_BKC.shape[1]:
            return self._few_keys(query_BQC, key_BKC, mask_BK)
        return self._few_queries(query_BQC, key_BKC, mask_BK)

    def _few_keys(self, query_BQC: Tensor, key_BKC: Tensor, mask_BK: Tensor | None) -> tuple[Tensor, Tensor]:
        m, keys = self.attention_heads, key_BKC.shape[1]
        k_BMKE, v_BMKE = self._split(self.k(key_BKC)), self._split(self.v(key_BKC))
        k_BMKE = k_BMKE * k_BMKE.shape[-1] ** -0.5
        toward_BMKC = k_BMKE @ self.q.weight.unflatten(0, (m, -1)).to(k_BMKE.dtype)
        offset_BMK1 = k_BMKE @ self.q.bias.view(m, -1, 1).to(k_BMKE.dtype)
        if mask_BK is not None:
            # Half of the least number: no score that is added can take it to minus infinity.
            offset_BMK1 = offset_BMK1.masked_fill(~mask_BK[:, None, :, None], torch.finfo(offset_BMK1.dtype).min / 2)
        # Queries last: a softmax over a handful of keys is ten times slower along the last axis than across it.
        query_BCQ = query_BQC.to(k_BMKE.dtype).mT
        scores_BmkQ = torch.baddbmm(offset_BMK1.flatten(1, 2), toward_BMKC.flatten(1, 2), query_BCQ)
        weights_BMKQ = scores_BmkQ.unflatten(1, (m, keys)).softmax(dim=2)
        from_BMKO = v_BMKE @ self.out.weight.unflatten(1, (m, -1)).permute(1, 2, 0).to(v_BMKE.dtype)
        bias = self.out.bias.to(v_BMKE.dtype)
        output_BQO = torch.baddbmm(bias, weights_BMKQ.flatten(1, 2).mT, from_BMKO.flatten(1, 2))
        return output_BQO, weights_BMKQ.mT

    def _few_queries(self, query_BQC: Tensor, key_BKC: Tensor, mask_BK: Tensor | None) -> tuple[Tensor, Tensor]:
        m, queries = self.attention_heads, query_BQC.shape[1]
        q_BMQE = self._split(self.q(query_BQC))
        q_BMQE = q_BMQE * q_BMQE.shape[-1] ** -0.5
        toward_BMQC = q_BMQE @ self.k.weight.unflatten(0, (m, -1)).to(q_BMQE.dtype)
        key_BKC = key_BKC.to(q_BMQE.dtype)
        scores_BMQK = (toward_BMQC.flatten(1, 2) @ key_BKC.transpose(1, 2)).unflatten(1, (m, queries))
        if mask_BK is not None:
            scores_BMQK = scores_BMQK.masked_fill(~mask_BK[:, None, None], torch.finfo(scores_BMQK.dtype).min)
        weights_BMQK = scores_BMQK.softmax(dim=-1)
        mixed_BMQC = (weights_BMQK.flatten(1, 2) @ key_BKC).unflatten(1, (m, queries))
        values_BMQE = mixed_BMQC @ self.v.weight.unflatten(0, (m, -1)).transpose(1, 2).to(q_BMQE.dtype)
        values_BQD = values_BMQE.transpose(1, 2).flatten(2) + self.v.bias.to(q_BMQE.dtype)
        return self.out(values_BQD), weights_BMQK

    def _split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(-1, (self.attention_heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU: the exact GELU is bound by memory on a CPU and gained nothing here."""

    def __init__(self, width: int, ratio: float = 2.0) -> None:
        hidden = round(width * ratio)
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


class SelfAttentionBlock(nn.Module):
    """Pre-norm transformer layer: `x + SA(LN(x))`, then `x + FFN(LN(x))`."""

    def __init__(self, width: int, attention_heads: int, ratio: float = 2.0) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, attention_heads)
        self.feed = FeedForward(width, ratio)

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        normed = self.norm_attention(x_BND)
        mixed, weights = self.attention(normed, normed, mask_BN)
        x_BND = x_BND + mixed
        return x_BND + self.feed(self.norm_feed(x_BND)), weights


class FusedSelfAttentionBlock(nn.Module):
    """Pre-norm transformer layer like `SelfAttentionBlock`, without attention weights as output, so that memory grows
    linearly with the tokens; optionally causal, optionally without its feed-forward part.
    """

    def __init__(self, width: int, attention_heads: int, *, causal: bool = False, feed: bool = True) -> None:
        super().__init__()
        self.attention_heads, self.causal = attention_heads, causal
        self.norm_attention = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.LayerNorm(width), FeedForward(width)) if feed else None

    def forward(self, x_BND: Tensor) -> Tensor:
        q, k, v = (
            self.qkv(self.norm_attention(x_BND)).unflatten(-1, (3, self.attention_heads, -1)).transpose(1, 3).unbind(2)
        )
        mixed = fused_attention(q, k, v, causal=self.causal)
        x_BND = x_BND + self.out(mixed.transpose(1, 2).flatten(2))
        return x_BND if self.feed is None else x_BND + self.feed(x_BND)


def fused_attention(q_BMNE: Tensor, k_BMNE: Tensor, v_BMNE: Tensor, *, causal: bool = False) -> Tensor:
    """`softmax(QKᵀ/√E)V` by whatever is fastest; memory grows linearly with N above `SHORT` tokens.

    On a CPU torch's fused kernel is four to eight times slower than plain products for short sequences of bfloat16, and
    twice as slow as its own float32 version for long ones.
    """
    if q_BMNE.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BMNE, k_BMNE, v_BMNE, is_causal=causal)
    if q_BMNE.shape[2] > SHORT:
        with torch.autocast("cpu", enabled=False):
            q, k, v = (at_least_float32(x) for x in (q_BMNE, k_BMNE, v_BMNE))
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal).to(v_BMNE.dtype)
    scores = (q_BMNE * q_BMNE.shape[-1] ** -0.5) @ k_BMNE.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, torch.finfo(scores.dtype).min)
    return scores.softmax(-1) @ v_BMNE


def newest_at_zero(frames: int, width: int, like: Tensor | None = None) -> Tensor:
    """Position encodings of T frames in time, the newest one at zero, `(T, width)`; see `place_encoding` for `like`."""
    times = torch.arange(frames, device=None if like is None else like.device) - (frames - 1)
    return _as_type_of(sinusoid(times, width), like)


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """Fixed position encoding `(..., width)` of float positions `(...)` (Vaswani et al. 2017, section 3.5)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(1e4) / max(half - 1, 1)))
    angles = positions[..., None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def masked_mean(x_BND: Tensor, mask_BN: Tensor) -> Tensor:
    """Mean over the N tokens whose mask is True, `(B, D)`."""
    weight_BN1 = mask_BN[..., None].to(x_BND.dtype)
    return (x_BND * weight_BN1).sum(1) / weight_BN1.sum(1).clamp(min=1)


def masked_average(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values whose mask is True; zero if there is none."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)


class Pool:
    """Means of both sides, `(B, D)` each, side by side or added: `(B, times · D)`."""

    def __init__(self, output: Literal["concat", "sum"]) -> None:
        self.times = 2 if output == "concat" else 1

    def __call__(self, vision_BND: Tensor, text_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        vision, text = vision_BND.mean(1), masked_mean(text_BLD, mask_BL)
        return torch.cat([vision, text], dim=-1) if self.times == 2 else vision + text


class Coarse:
    """Means of stride x stride neighbouring places of pictures with the same grid, and the way back.

    The last of a row or column are fewer where the stride does not divide it.
    """

    def __init__(self, grid: tuple[int, int], stride: int) -> None:
        self.fine, self.stride = grid, stride
        self.grid = (-(-grid[0] // stride), -(-grid[1] // stride))

    def means(self, x_BND: Tensor) -> Tensor:
        """Tokens `(B, P·h·w, D)` of P pictures → `(B, P·h'·w', D)`."""
        if self.stride == 1:
            return x_BND
        b, _, d = x_BND.shape
        maps = x_BND.unflatten(1, (-1, *self.fine)).flatten(0, 1).permute(0, 3, 1, 2)
        coarse = F.avg_pool2d(maps, self.stride, ceil_mode=True)
        return coarse.permute(0, 2, 3, 1).reshape(b, -1, d)

    def spread(self, values: Tensor, *, share: bool = False) -> Tensor:
        """Values of the means `(..., P·h'·w')` at each of their places `(..., P·h·w)`.

        Args:
            share: divide each value among its places, so that the sum stays.
        """
        if self.stride == 1:
            return values
        at = values.unflatten(-1, (-1, *self.grid))
        for axis, size in ((-2, self.fine[0]), (-1, self.fine[1])):
            at = at.repeat_interleave(self.stride, dim=axis).narrow(axis, 0, size)
        flat = at.flatten(-3)
        if not share:
            return flat
        full = at_least_float32(flat)
        return full / full.sum(-1, keepdim=True).clamp(min=1e-12)


def cell_centres(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Centres (x, y) in [0, 1] of a grid's h·w cells, row-major, `(h·w, 2)`."""
    h, w = grid
    y, x = torch.meshgrid(
        (torch.arange(h, device=device) + 0.5) / h, (torch.arange(w, device=device) + 0.5) / w, indexing="ij"
    )
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def place_encoding(grid: tuple[int, int], width: int, like: Tensor | None = None) -> Tensor:
    """Position encodings `(h·w, width)` of a grid's cells: half for the column, half for the row.

    Args:
        like: a parameter of the layer that uses them; they get its device and type. (The type of its input is another
            one under autocast.)
    """
    centres = 100 * cell_centres(grid, None if like is None else like.device)
    return _as_type_of(torch.cat([sinusoid(centres[:, axis], width // 2) for axis in (0, 1)], dim=-1), like)


def _as_type_of(encoding: Tensor, like: Tensor | None) -> Tensor:
    return encoding if like is None else encoding.to(like.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, for losses and outputs; float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class FullPrecisionBuffers(nn.Module):
    """Keeps the type of its own buffers when a policy is converted, as by `policy.bfloat16()`: statistics of the data
    would lose too much. Buffers still move between devices.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            now = self._buffers[name]
            if buffer is not None and now is not None and now.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(now.device)
        return self


class ResidualBlock(nn.Module):
    """`x + FFN(LN(x))`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.feed = nn.LayerNorm(width), FeedForward(width, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.feed(self.norm(x))


def residual_layers(before: int, width: int, after: int, blocks: int) -> nn.Sequential:
    """A linear layer, residual blocks, a norm and a linear layer: deep, and still quick to learn."""
    inner = [ResidualBlock(width) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(before, width), *inner, nn.LayerNorm(width), nn.Linear(width, after))


def octaves(x: Tensor, count: int) -> Tensor:
    """Sines and cosines of 1, 2, 4, ... times the values: `(..., N)` → `(..., 2 · count · N)` (Fourier features, Tancik
    et al. 2020).
    """
    scaled = torch.cat([x * 2**k for k in range(count)], dim=-1)
    return torch.cat([scaled.sin(), scaled.cos()], dim=-1)


def multi_layer(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(before, after))
        if i < len(widths) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
