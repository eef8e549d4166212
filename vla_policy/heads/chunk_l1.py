"""Regression of a chunk of actions with an L1 loss (Zhao et al. 2023; Kim et al. 2025).

B batch, S chunk steps, A action dimensions, F feature width.
"""

from __future__ import annotations

from torch import Tensor

from vla_policy.decision import ActionHead, HeadSetup
from vla_policy.layers import at_least_float32, masked_average


class ChunkL1Head(ActionHead):
    def __init__(self, config: None, setup: HeadSetup) -> None:
        super().__init__()
        self.chunk, self.actions = setup.chunk, setup.actions
        self.layers = setup.network(setup.features, setup.chunk * setup.actions)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Actions `(B, S, A)`, not clipped."""
        return at_least_float32(self.layers(features_BF)).unflatten(-1, (self.chunk, self.actions))

    def act(self, features: Tensor) -> Tensor:
        """Actions `(B, S, A)` in [-1, 1]."""
        return self(features).clamp(-1, 1)

    def loss(self, features: Tensor, action_BSA: Tensor, mask_BS: Tensor) -> Tensor:
        """Mean absolute error over the steps whose mask is True."""
        return masked_average((self(features) - action_BSA).abs().mean(-1), mask_BS)
