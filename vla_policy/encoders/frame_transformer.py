"""The backbone on every frame, then a transformer over time at every place. It is causal: a frame attends to no later
one.

B batch, T frames, n tokens per frame, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from configs.policy import FrameTransformerConfig
from vla_policy.layers import FusedSelfAttentionBlock
from vla_policy.vision import CoarseTimeEncoder, EncoderSetup


class FrameTransformerEncoder(CoarseTimeEncoder):
    """Causal attention over the T tokens of one place (Vaswani et al. 2017)."""

    def __init__(self, config: FrameTransformerConfig, setup: EncoderSetup) -> None:
        super().__init__(setup)
        self.layers = nn.ModuleList(
            FusedSelfAttentionBlock(setup.width, setup.attention_heads, causal=True) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(setup.width)

    def over_time(self, x_BTnD: Tensor) -> Tensor:
        b = x_BTnD.shape[0]
        by_place = x_BTnD.transpose(1, 2).flatten(0, 1)
        for layer in self.layers:
            by_place = layer(by_place)
        newest: Tensor = self.norm(by_place[:, -1]).unflatten(0, (b, -1))
        return newest
