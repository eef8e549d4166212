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
        dropout: probability with which each weight is left out in training; those that come out are whole.
    """

    def __init__(
        self,
        width: int,
        attention_heads: int,
        *,
        query_width: int | None = None,
        key_width: int | None = None,
        out_width: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % attention_heads:
            raise ValueError(f"width {width} must be a multiple of attention_heads {attention_heads}")
        self.attention_heads, self.dropout = attention_heads, dropout
        self.q = nn.Linear(query_width or width, width)
        # A bias on the keys adds the same to all scores of a query, which softmax ignores.
        self.k = nn.Linear(key_width or width, width, bias=False)
        self.v = nn.Linear(key_width or width, width)
        self.out = nn.Linear(width, out_width or width)

    def forward(
        self, query_BQC: Tensor, key_BKC: Tensor, mask_BK: Tensor | None = None, value_BKC: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns output `(B, Q, out_width)` and weights `(B, M, Q, K)`; keys with a False mask get weight zero. The
        values are the keys where none are given.
        """
        value_BKC = key_BKC if value_BKC is None else value_BKC
        if query_BQC.shape[1] > key_BKC.shape[1]:
            return self._few_keys(query_BQC, key_BKC, value_BKC, mask_BK)
        return self._few_queries(query_BQC, key_BKC, value_BKC, mask_BK)

    def _few_keys(
        self, query_BQC: Tensor, key_BKC: Tensor, value_BKC: Tensor, mask_BK: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        m, keys = self.attention_heads, key_BKC.shape[1]
        k_BMKE, v_BMKE = self._split(self.k(key_BKC)), self._split(self.v(value_BKC))
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
        bias, kept_BMKQ = self.out.bias.to(v_BMKE.dtype), self._dropped(weights_BMKQ)
        output_BQO = torch.baddbmm(bias, kept_BMKQ.flatten(1, 2).mT, from_BMKO.flatten(1, 2))
        return output_BQO, weights_BMKQ.mT

    def _few_queries(
        self, query_BQC: Tensor, key_BKC: Tensor, value_BKC: Tensor, mask_BK: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        m, queries = self.attention_heads, query_BQC.shape[1]
        q_BMQE = self._split(self.q(query_BQC))
        q_BMQE = q_BMQE * q_BMQE.shape[-1] ** -0.5
        toward_BMQC = q_BMQE @ self.k.weight.unflatten(0, (m, -1)).to(q_BMQE.dtype)
        key_BKC, value_BKC = key_BKC.to(q_BMQE.dtype), value_BKC.to(q_BMQE.dtype)
        scores_BMQK = (toward_BMQC.flatten(1, 2) @ key_BKC.transpose(1, 2)).unflatten(1, (m, queries))
        if mask_BK is not None:
            scores_BMQK = scores_BMQK.masked_fill(~mask_BK[:, None, None], torch.finfo(scores_BMQK.dtype).min)
        weights_BMQK = scores_BMQK.softmax(dim=-1)
        kept_BMQK = self._dropped(weights_BMQK)
        mixed_BMQC = (kept_BMQK.flatten(1, 2) @ value_BKC).unflatten(1, (m, queries))
        values_BMQE = mixed_BMQC @ self.v.weight.unflatten(0, (m, -1)).transpose(1, 2).to(q_BMQE.dtype)
        values_BQD = values_BMQE.transpose(1, 2).flatten(2)
        bias_D = self.v.bias.to(q_BMQE.dtype)
        if kept_BMQK is not weights_BMQK:  # then the weights do not add up to 1, and each value brings its bias along
            share_BQM1 = kept_BMQK.sum(-1).transpose(1, 2)[..., None]
            return self.out(values_BQD + (share_BQM1 * bias_D.view(m, -1)).flatten(2)), weights_BMQK
        return self.out(values_BQD + bias_D), weights_BMQK

    def _dropped(self, weights: Tensor) -> Tensor:
        return F.dropout(weights, self.dropout) if self.dropout and self.training else weights

    def _split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(-1, (self.attention_heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU: the exact GELU is bound by memory on a CPU and gained nothing here. Dropout, if
    any, is between the layers.
    """

    def __init__(self, width: int, ratio: float = 2.0, dropout: float = 0.0) -> None:
        hidden = round(width * ratio)
        between = nn.Sequential(nn.ReLU(), nn.Dropout(dropout)) if dropout else nn.ReLU()
        super().__init__(nn.Linear(width, hidden), between, nn.Linear(hidden, width))


class SelfAttentionBlock(nn.Module):
    """Transformer layer: `x + SA(LN(x))`, then `x + FFN(LN(x))`; or, with norm "post", `LN(x + SA(x))`, then
    `LN(x + FFN(x))` (Vaswani et al. 2017, section 3.1).
    """

    def __init__(
        self,
        width: int,
        attention_heads: int,
        ratio: float = 2.0,
        *,
        norm: Literal["pre", "post"] = "pre",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.post = norm == "post"
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, attention_heads, dropout=dropout)
        self.feed = FeedForward(width, ratio, dropout)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x_BND: Tensor, mask_BN: Tensor | None = None, place_BND: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`place_BND` is added to queries and keys, but not to values (Carion et al. 2020, section A.3)."""
        normed = x_BND if self.post else self.norm_attention(x_BND)
        where = normed if place_BND is None else normed + place_BND
        mixed, weights = self.attention(where, where, mask_BN, normed)
        x_BND = x_BND + self.drop(mixed)
        if self.post:
            x_BND = self.norm_attention(x_BND)
            return self.norm_feed(x_BND + self.drop(self.feed(x_BND))), weights
        return x_BND + self.drop(self.feed(self.norm_feed(x_BND))), weights


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


def start_with_xavier(module: nn.Module) -> None:
    """Weight matrices as DETR and TubeDETR begin with them (Glorot and Bengio 2010). Queries, keys and values are one
    matrix there, and begin smaller for it.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
    for part in module.modules():
        if isinstance(part, Attention):
            for projection in (part.q, part.k, part.v):
                nn.init.xavier_uniform_(projection.weight, gain=2**-0.5)
            for linear in (part.q, part.v, part.out):
                nn.init.zeros_(linear.bias)


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


def sine_places(mask_Bhw: Tensor, width: int) -> Tensor:
    """Position encodings `(B, h·w, width)` as DETR has them (Carion et al. 2020, section A.4): half for the row, half
    for the column, each counted from 1 over the cells whose mask is True and scaled to 2π at the last of them.
    """
    encodings = []
    for axis in (1, 2):
        count = mask_Bhw.cumsum(axis, dtype=torch.float32)
        whole = count.narrow(axis, count.shape[axis] - 1, 1)
        encodings.append(interleaved_sinusoid(2 * math.pi * count / (whole + 1e-6), width // 2))
    return torch.cat(encodings, dim=-1).flatten(1, 2)


def interleaved_sinusoid(positions: Tensor, width: int) -> Tensor:
    """Like `sinusoid`, with rates `1e4^(-2i/width)` and with sine and cosine of each rate side by side."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(1e4) / width))
    angles = positions[..., None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


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
