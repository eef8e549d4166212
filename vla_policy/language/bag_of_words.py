"""A control that knows which words there are and nothing of their order: the mean of their embeddings, as one token.

B batch, L words, D width.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from configs.policy import LanguageConfig
from vla_policy.contract import Shapes
from vla_policy.dialogue import LanguageEncoder
from vla_policy.layers import masked_mean
from vla_policy.tokens import LanguageTokens


class BagOfWords(LanguageEncoder):
    def __init__(
        self, config: LanguageConfig, shapes: Shapes, width: int, heads: int, saved: Path | None = None
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shapes.vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.layers = nn.ModuleList()
        self.norm = nn.LayerNorm(width)

    def embed(self, tokens_BL: Tensor, mask_BL: Tensor) -> LanguageTokens:
        bag = masked_mean(self.embedding(tokens_BL), mask_BL)
        return LanguageTokens(tokens=bag[:, None], mask=mask_BL.any(1, keepdim=True))

    def finish(self, words: LanguageTokens) -> LanguageTokens:
        return LanguageTokens(tokens=self.norm(words.tokens), mask=words.mask)
