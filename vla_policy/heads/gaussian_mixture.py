"""A mixture of Gaussians over each step's action, trained by its negative log-likelihood (Bishop 1994; Mandlekar et al.
2021). It can hold two different good actions where a mean would lie between them.

B batch, S chunk steps, A action dimensions, F feature width, K components.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.policy import GaussianMixtureConfig
from vla_policy.decision import ActionHead, HeadSetup
from vla_policy.layers import at_least_float32, masked_average

LEAST_DEVIATION = 0.03  # of a component: without a floor the likelihood of a label met exactly has no bound


class GaussianMixtureHead(ActionHead):
    loss_scale = 0.15  # on the same features its gradient is 7 times that of `chunk_l1`

    def __init__(self, config: GaussianMixtureConfig, setup: HeadSetup) -> None:
        super().__init__()
        self.chunk, self.actions, self.components = setup.chunk, setup.actions, config.components
        out = self.chunk * self.components * (2 * self.actions + 1)
        self.layers = setup.network(setup.features, out)

    def forward(self, features_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights `(B, S, K)`, means and standard deviations `(B, S, K, A)`."""
        out = at_least_float32(self.layers(features_BF)).unflatten(
            -1, (self.chunk, self.components, 2 * self.actions + 1)
        )
        mean, spread, weight = out.split([self.actions, self.actions, 1], dim=-1)
        return weight.squeeze(-1).log_softmax(-1), mean, F.softplus(spread - 1) + LEAST_DEVIATION

    def act(self, features: Tensor) -> Tensor:
        """The mean of the likeliest component, `(B, S, A)` in [-1, 1]."""
        log_weight, mean, _ = self(features)
        best = log_weight.argmax(-1)[..., None, None].expand(-1, -1, 1, self.actions)
        return mean.gather(2, best).squeeze(2).clamp(-1, 1)

    def loss(self, features: Tensor, action_BSA: Tensor, mask_BS: Tensor) -> Tensor:
        """Negative log-likelihood per dimension, over the steps whose mask is True."""
        log_weight, mean, deviation = self(features)
        scaled = (action_BSA[:, :, None] - mean) / deviation
        log_density = -0.5 * (scaled**2 + math.log(2 * math.pi)) - deviation.log()
        likelihood = torch.logsumexp(log_weight + log_density.sum(-1), dim=-1)
        return masked_average(-likelihood / self.actions, mask_BS)
