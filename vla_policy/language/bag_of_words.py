"""A control without word order: the mean of the words' embeddings, as one token.

B batch, L text tokens, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from vla_policy.exchange import LanguageEncoder, LanguageSetup
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

    def finish(self, text: LanguageTokens) -> LanguageTokens:
        return LanguageTokens(tokens=self.norm(text.tokens), mask=text.mask)
