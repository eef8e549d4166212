"""No actions: of policies that only ground.

B batch, S chunk steps, A action dimensions, F feature width.
"""

from __future__ import annotations

from torch import Tensor

from vla_policy.decision import ActionHead, HeadSetup
from vla_policy.layers import at_least_float32


class NoHead(ActionHead):
    """Zeros, which are the middle of every action's range, and a loss of zero."""

    def __init__(self, config: None, setup: HeadSetup) -> None:
        super().__init__()
        self.shape = (setup.chunk, setup.actions)

    def act(self, features: Tensor) -> Tensor:
        return at_least_float32(features.new_zeros(features.shape[0], *self.shape))

    def loss(self, features: Tensor, action_BSA: Tensor, mask_BS: Tensor) -> Tensor:
        return action_BSA.new_zeros(())
