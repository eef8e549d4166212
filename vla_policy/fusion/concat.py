"""Late fusion by concatenation: `[f_v; f_l] ∈ R^(d_v + d_l)` of the two encoders' outputs."""

from __future__ import annotations

from vla_policy.exchange import Fusion, FusionSetup
from vla_policy.layers import Pool
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class ConcatFusion(Fusion):
    """Neither side changes the other, and nothing is learned."""

    def __init__(self, config: None, setup: FusionSetup) -> None:
        super().__init__()
        self.pool = Pool("concat")
        self.pooled_width = 2 * setup.width

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        pooled = self.pool(vision.fused.flatten(1, 2), language.tokens, language.mask)
        return FusedTokens(vision=vision.fused, language=language.tokens, pooled=pooled, attention={})
