"""Flow matching: a velocity field that carries noise to actions along straight lines (Lipman et al. 2023; Black et al.
2024). With x_t = (1 - t)·noise + t·action, the field is trained to be action - noise.

B batch, S chunk steps, A action dimensions, F feature width, R draws of noise per sample.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.policy import FlowMatchingConfig
from vla_policy.decision import ActionHead, HeadSetup
from vla_policy.layers import at_least_float32, masked_average, sinusoid

DRAWS = 8  # of noise and time per sample: the field is cheap compared with the features
TIME_WIDTH = 16


class FlowMatchingHead(ActionHead):
    def __init__(self, config: FlowMatchingConfig, setup: HeadSetup) -> None:
        super().__init__()
        self.chunk, self.actions, self.steps = setup.chunk, setup.actions, config.integration_steps
        hidden, out = setup.hidden, setup.chunk * setup.actions
        self.context = nn.Linear(setup.features, hidden)
        self.moving = nn.Linear(out + TIME_WIDTH, hidden, bias=False)
        self.layers = setup.network(hidden, out)

    def forward(self, context_BH: Tensor, x_BSA: Tensor, time_B: Tensor) -> Tensor:
        """Velocity `(..., S, A)` at the points x `(..., S, A)` and times in [0, 1] `(...)`."""
        moving = torch.cat([x_BSA.flatten(-2), sinusoid(100 * time_B, TIME_WIDTH)], dim=-1)
        hidden = torch.relu(context_BH + self.moving(moving.to(self.moving.weight.dtype)))
        velocity: Tensor = at_least_float32(self.layers(hidden)).unflatten(-1, (self.chunk, self.actions))
        return velocity

    def act(self, features: Tensor) -> Tensor:
        """Euler integration from the middle of the noise, so that the same input gives the same action."""
        context = self.context(features)
        x = features.new_zeros(features.shape[0], self.chunk, self.actions)
        for step in range(self.steps):
            time = x.new_full(x.shape[:1], step / self.steps)
            x = x + self(context, x, time) / self.steps
        return x.clamp(-1, 1)

    def loss(self, features: Tensor, action_BSA: Tensor, mask_BS: Tensor) -> Tensor:
        """Mean squared error of the velocity over the steps whose mask is True."""
        noise = torch.randn(DRAWS, *action_BSA.shape, device=action_BSA.device)
        time = torch.rand(noise.shape[:2], device=noise.device)
        along = time[..., None, None]
        velocity = self(self.context(features), (1 - along) * noise + along * action_BSA, time)
        return masked_average((velocity - (action_BSA - noise)).square().mean((0, 3)), mask_BS)
