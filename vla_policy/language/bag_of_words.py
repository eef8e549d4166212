"""A control that knows which words there are and nothing of their order: the mean of their embeddings, as one token.

B batch, L words, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from vla_policy.dialogue import LanguageEncoder, LanguageSetup
from vla_policy.layers import masked_mean
from vla_policy.tokens import LanguageTokens


class BagOfWords(LanguageEncoder):
    def __init__(self, config: None, setup: LanguageSetup) -> None:
        super().__init__()
        self.embedding = nn.Embedding(setup.vocabulary, setup.width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.layers = nn.ModuleList()
        self.norm = nn.LayerNorm(setup.width)

    def embed(self, tokens_BL: Tensor, mask_BL: Tensor) -> LanguageTokens:
        bag = masked_mean(self.embedding(tokens_BL), mask_BL)
        return LanguageTokens(tokens=bag[:, None], mask=mask_BL.any(1, keepdim=True))

    def finish(self, words: LanguageTokens) -> LanguageTokens:
        return LanguageTokens(tokens=self.norm(words.tokens), mask=words.mask)
