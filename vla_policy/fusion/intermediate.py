"""Intermediate fusion: features are exchanged between the two encoders' layers, and both continue with the result,
`f_v^(i+1) = Encoder_v(f_v^(i), f_l^(i))`, `f_l^(i+1) = Encoder_l(f_l^(i), f_v^(i))`.
"""

from __future__ import annotations

from configs.policy import IntermediateConfig
from vla_policy.exchange import CrossModalExchange, Fusion, FusionSetup, LanguageEncoder
from vla_policy.fusion.interactions import StageExchanges
from vla_policy.layers import Pool
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class IntermediateFusion(Fusion):
    def __init__(self, config: IntermediateConfig, setup: FusionSetup) -> None:
        super().__init__()
        self.exchanges = StageExchanges(config.interaction, config.position, setup)
        self.pool = Pool(config.output)
        self.pooled_width = self.pool.times * setup.width

    def exchange(self, language: LanguageEncoder, text: LanguageTokens) -> CrossModalExchange:
        return self.exchanges.exchange(language, text)

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        pooled = self.pool(vision.fused.flatten(1, 2), language.tokens, language.mask)
        return FusedTokens(vision=vision.fused, language=language.tokens, pooled=pooled, attention={})
