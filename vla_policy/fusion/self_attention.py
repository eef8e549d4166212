"""One sequence `[f_v; f_l]` through a transformer encoder.

B batch, K newest frames, N visual tokens per frame, L text tokens, D width.
"""

from __future__ import annotations

import torch
from torch import nn

from configs.policy import SelfAttentionConfig
from vla_policy.exchange import Fusion, FusionSetup
from vla_policy.layers import Pool, SelfAttentionBlock
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class SelfAttentionFusion(Fusion):
    """A learned vector per side marks which side a token comes from."""

    def __init__(self, config: SelfAttentionConfig, setup: FusionSetup) -> None:
        super().__init__()
        self.side = nn.Parameter(0.02 * torch.randn(2, setup.width))
        self.layers = nn.ModuleList(
            SelfAttentionBlock(setup.width, setup.attention_heads) for _ in range(config.layers)
        )
        self.pool = Pool(config.output)
        self.pooled_width = self.pool.times * setup.width

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        grid, v = vision.fused.shape[1:3], vision.fused.flatten(1, 2)
        places = v.shape[1]
        x = torch.cat([v + self.side[0], language.tokens + self.side[1]], dim=1)
        mask = torch.cat([language.mask.new_ones(v.shape[:2]), language.mask], dim=1)
        attention = {}
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, mask)
            attention[f"self_{i}"] = weights
        v, text = x[:, :places], x[:, places:]
        pooled = self.pool(v, text, language.mask)
        return FusedTokens(vision=v.unflatten(1, grid), language=text, pooled=pooled, attention=attention)
