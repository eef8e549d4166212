"""Tokens that pass between encoders, fusion, grounding and action heads.

B batch, T frames, V cameras, h w grid, N = V·h·w visual tokens per frame, L text tokens, D width, M attention heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Padding:
    """What of a batch of videos is content: frames `(B, T)` and pixels `(B, H, W)` of all of a video's frames, both
    bool and False where there is padding. None where there is none.
    """

    frames: Tensor | None = None
    pixels: Tensor | None = None

    def places(self, grid: tuple[int, int]) -> Tensor | None:
        """Which cells of a grid are content, `(B, h, w)`: those whose first pixel is."""
        if self.pixels is None:
            return None
        return F.interpolate(self.pixels[:, None].float(), size=grid, mode="nearest")[:, 0].bool()


@dataclass(frozen=True, kw_only=True)
class VisualTokens:
    """The output of a vision encoder.

    fused `(B, K, N, D)`: tokens of the K newest frames, newest last, K being 1 (the current tokens) or T. They carry
    appearance and motion, and go to the fusion.
    frames `(B, T, N, D_frame)`: the features of each frame on its own, for grounding.
    grid: (h, w).
    text: of an encoder that reads the text tokens, these tokens after each frame changed them, `(B, T, L, D_frame)`,
    with their mask.
    attention: attention maps by name, `(B, M, queries, keys)`.
    padding: what of the frames is none of their content.
    """

    fused: Tensor
    frames: Tensor
    grid: tuple[int, int]
    text: LanguageTokens | None = None
    padding: Padding | None = None
    attention: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LanguageTokens:
    """Text tokens `(B, L, D)`, or `(B, T, L, D)` for each frame, and mask `(B, L)`, False where there is padding."""

    tokens: Tensor
    mask: Tensor


@dataclass(frozen=True, kw_only=True)
class FusedTokens:
    """The output of a fusion.

    vision `(B, K, N, D)`: visual tokens that depend on the text.
    language `(B, L, D)`: text tokens that depend on vision.
    pooled `(B, D_pooled)`: one vector for both.
    attention: attention maps by name, `(B, M, queries, keys)`.
    voters `(B, R, D_pooled)`: one vector for each of R voters, if decisions are taken by vote.
    """

    vision: Tensor
    language: Tensor
    pooled: Tensor
    attention: dict[str, Tensor]
    voters: Tensor | None = None
