"""A small text transformer, trained from scratch.

B batch, L text tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.policy import TextTransformerConfig
from vla_policy.exchange import LanguageEncoder, LanguageSetup
from vla_policy.layers import SelfAttentionBlock, sinusoid
from vla_policy.tokens import LanguageTokens


class TextTransformer(LanguageEncoder):
    def __init__(self, config: TextTransformerConfig, setup: LanguageSetup) -> None:
        super().__init__()
        self.embedding = nn.Embedding(setup.vocabulary, setup.width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.layers = nn.ModuleList(
            SelfAttentionBlock(setup.width, setup.attention_heads) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(setup.width)

    def embed(self, tokens_BL: Tensor, mask_BL: Tensor) -> LanguageTokens:
        x = self.embedding(tokens_BL)
        encoding = sinusoid(torch.arange(tokens_BL.shape[1], device=tokens_BL.device), x.shape[-1])
        x = x + 0.2 * encoding.to(x.dtype)
        return LanguageTokens(tokens=x, mask=mask_BL)

    def finish(self, text: LanguageTokens) -> LanguageTokens:
        return LanguageTokens(tokens=self.norm(text.tokens), mask=text.mask)
