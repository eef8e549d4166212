"""A small text transformer, trained from scratch.

B batch, L words, D width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vla_policy.config import LanguageConfig
from vla_policy.contract import Shapes
from vla_policy.layers import SelfAttentionBlock, sinusoid
from vla_policy.tokens import LanguageTokens


class TextTransformer(nn.Module):
    def __init__(
        self, config: LanguageConfig, shapes: Shapes, width: int, heads: int, saved: Path | None = None
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shapes.vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.layers = nn.ModuleList(SelfAttentionBlock(width, heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, mask: Tensor) -> LanguageTokens:
        x = self.embedding(tokens)
        x = x + 0.2 * sinusoid(torch.arange(tokens.shape[1], device=tokens.device), x.shape[-1])
        for layer in self.layers:
            x, _ = layer(x, mask)
        return LanguageTokens(tokens=self.norm(x), mask=mask)
