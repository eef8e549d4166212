"""Late fusion by weights: `w_v·f_v + w_l·f_l` of the two encoders' outputs.

B batch, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.policy import WeightedConfig
from vla_policy.exchange import Fusion, FusionSetup
from vla_policy.layers import masked_mean
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class WeightedFusion(Fusion):
    """Weights are fixed at 0.5, a learned number or vector per side, or, as "attention", a softmax over scores of
    the two sides, `softmax([a_v·f_v, a_l·f_l])`.
    """

    def __init__(self, config: WeightedConfig, setup: FusionSetup) -> None:
        super().__init__()
        self.pooled_width = setup.width
        self.score: nn.ModuleList | None = None
        if config.weights == "attention":
            self.score = nn.ModuleList(nn.Linear(setup.width, 1) for _ in range(2))
        else:
            size = setup.width if config.weights == "vector" else 1
            self.weights = nn.Parameter(torch.full((2, size), 0.5), requires_grad=config.weights != "fixed")

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        sides = torch.stack([vision.fused.flatten(1, 2).mean(1), masked_mean(language.tokens, language.mask)], dim=1)
        pooled = (self.weigh(sides) * sides).sum(1)
        return FusedTokens(vision=vision.fused, language=language.tokens, pooled=pooled, attention={})

    def weigh(self, sides_B2D: Tensor) -> Tensor:
        """Weights of vision and language, to be multiplied with `(B, 2, D)`."""
        if self.score is None:
            return self.weights
        scores = torch.stack([score(sides_B2D[:, i]) for i, score in enumerate(self.score)], dim=1)
        return scores.softmax(dim=1)
