"""No fusion: the encoder has read the words itself, and what it made of them is pooled, `[mean F_v; mean h_s]`."""

from __future__ import annotations

from vla_policy.dialogue import Fusion, FusionSetup
from vla_policy.layers import Pool
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class NoFusion(Fusion):
    """Takes the words as the newest frame changed them."""

    def __init__(self, config: None, setup: FusionSetup) -> None:
        super().__init__()
        self.pool = Pool("concat")
        self.pooled_width = 2 * setup.width

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        words = language.tokens if vision.words is None else vision.words.tokens[:, -1]
        pooled = self.pool(vision.fused.flatten(1, 2), words, language.mask)
        return FusedTokens(vision=vision.fused, language=words, pooled=pooled, attention={})
