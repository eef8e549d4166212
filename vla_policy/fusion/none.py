"""No fusion: the vision encoder has read the text tokens itself, and its outputs are pooled, `[mean F_v; mean h_s]`."""

from __future__ import annotations

from vla_policy.exchange import Fusion, FusionSetup
from vla_policy.layers import Pool
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class NoFusion(Fusion):
    """Takes the text tokens after the newest frame changed them."""

    def __init__(self, config: None, setup: FusionSetup) -> None:
        super().__init__()
        self.pool = Pool("concat")
        self.pooled_width = 2 * setup.width

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        text = language.tokens if vision.text is None else vision.text.tokens[:, -1]
        pooled = self.pool(vision.fused.flatten(1, 2), text, language.mask)
        return FusedTokens(vision=vision.fused, language=text, pooled=pooled, attention={})
