"""Tokens that travel between encoders, fusion, grounding and heads.

B batch, T frames, V cameras, h w grid, N = V·h·w visual tokens a frame, L words, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class VisualTokens:
    """An encoder's output.

    fused `(B, K, N, D)`: tokens of K moments, newest last, K being 1 or T; they carry space and motion and go to the
    fusion. frames `(B, T, N, D_frame)`: what each single frame looks like, for grounding. grid: (h, w). words: of an
    encoder that reads, the words as each frame changed them, `(B, T, L, D_frame)`, with the mask of the words.
    attention: its maps by name, `(B, M, queries, keys)`.
    """

    fused: Tensor
    frames: Tensor
    grid: tuple[int, int]
    words: LanguageTokens | None = None
    attention: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LanguageTokens:
    """Word tokens `(B, L, D)`, or `(B, T, L, D)` for each frame, and mask `(B, L)`, True where there is a word."""

    tokens: Tensor
    mask: Tensor


@dataclass(frozen=True, kw_only=True)
class FusedTokens:
    """A fusion's output: text-aware vision `(B, K, N, D)`, vision-aware text `(B, L, D)`, pooled `(B, D_pooled)`, its
    attention maps by name, `(B, M, queries, keys)`, and what each of R voters pools, `(B, R, D_pooled)`, if they vote.
    """

    vision: Tensor
    language: Tensor
    pooled: Tensor
    attention: dict[str, Tensor]
    voters: Tensor | None = None
