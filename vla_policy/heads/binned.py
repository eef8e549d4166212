"""Each action dimension as a distribution over bins, trained by cross-entropy.

A label is spread over the bins around it by a narrow Gaussian ("histogram loss", Imani & White 2018). So neighbouring
bins learn from each other, and binning costs hardly any precision. The action is the distribution's mean. At both ends,
where there is no bin beyond, a full command comes out smaller: by 2 % with 41 bins.

B batch, S chunk steps, A action dimensions, F feature width, N bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from configs.policy import BinnedConfig
from vla_policy.decision import ActionHead, HeadSetup
from vla_policy.layers import FullPrecisionBuffers, at_least_float32, masked_average

SPREAD = 0.75  # standard deviation of a label, in bins


class BinnedHead(FullPrecisionBuffers, ActionHead):
    loss_scale = 0.3  # on the same features its gradient is 3 times that of `chunk_l1`
    centres: Tensor

    def __init__(self, config: BinnedConfig, setup: HeadSetup) -> None:
        super().__init__()
        self.shape = (setup.chunk, setup.actions, config.bins)
        self.layers = setup.network(setup.features, math.prod(self.shape))
        self.register_buffer("centres", torch.linspace(-1, 1, config.bins), persistent=False)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits `(B, S, A, N)`."""
        logits: Tensor = at_least_float32(self.layers(features_BF)).unflatten(-1, self.shape)
        return logits

    def act(self, features: Tensor) -> Tensor:
        """The mean, `(B, S, A)` in [-1, 1]. The likeliest bin jumps where several are about as likely."""
        shares = self(features).softmax(-1)
        mean: Tensor = shares @ self.centres.to(shares.dtype)
        return mean

    def loss(self, features: Tensor, action_BSA: Tensor, mask_BS: Tensor) -> Tensor:
        """Cross-entropy over the steps whose mask is True."""
        cross_entropy = -(self.share(action_BSA) * self(features).log_softmax(-1)).sum(-1)
        return masked_average(cross_entropy.mean(-1), mask_BS)

    def share(self, action_BSA: Tensor) -> Tensor:
        """What share of a label each bin gets, `(B, S, A, N)`, adding up to 1."""
        spacing = self.centres[1] - self.centres[0]
        off = (action_BSA.clamp(-1, 1)[..., None] - self.centres) / (SPREAD * spacing)
        return (-0.5 * off**2).softmax(-1)
