"""Proximal policy optimisation of Stable-Baselines3 for an action head that was cloned, with an anchor to what it was.

B batch, F features, E control steps that are executed of a chunk, A actions.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from training.reinforcement.follower import diverged
from vla_policy.heads.chunk_l1 import ChunkL1Head
from vla_policy.layers import multi_layer

VALUE_WIDTH = 256


class Mean(nn.Module):
    """The first E of the chunk's actions as one, (B, F) → (B, E · A)."""

    def __init__(self, head: ChunkL1Head, execute: int) -> None:
        super().__init__()
        self.head, self._execute = head, execute

    def forward(self, features: Tensor) -> Tensor:
        actions: Tensor = self.head(features)[:, : self._execute]
        return actions.flatten(1)


class HeadPolicy(ActorCriticPolicy):
    """The action head as the mean of a Gaussian, and a value head on the same features."""

    def __init__(self, *args: Any, head: ChunkL1Head, execute: int, deviation: float, **settings: Any) -> None:
        super().__init__(*args, **settings)
        features = int(np.prod(self.observation_space.shape or ()))
        self.action_net = Mean(copy.deepcopy(head), execute)
        value = nn.Sequential(nn.LayerNorm(features), multi_layer([features, VALUE_WIDTH, VALUE_WIDTH, 1]))
        self.value_net = value  # type: ignore[assignment]
        self.log_std = nn.Parameter(torch.full_like(self.log_std, float(np.log(deviation))))
        for parameter in self.action_net.parameters():
            parameter.requires_grad_(True)
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer = torch.optim.Adam(self.parameters(), rate, eps=1e-5)

    @property
    def mean(self) -> Mean:
        assert isinstance(self.action_net, Mean)
        return self.action_net


class AnchoredPPO(PPO):
    """PPO whose loss has the divergence from the mean that it began with, too.

    `updates` counts them; `last` are the newest one's means.
    """

    def hold(self, weight: float, warmup: int, rehearsed: Tensor | None, *, seed: int = 0) -> None:
        """Set the weight of the divergence, the updates of the value head alone, and other states (N, F) in which the
        mean is held, too, of which `seed` draws some.
        """
        assert isinstance(self.policy, HeadPolicy)
        self._weight, self._warmup, self._rehearsed = weight, warmup, rehearsed
        self._before = copy.deepcopy(self.policy.mean).requires_grad_(False)
        self._chance = torch.Generator().manual_seed(seed)
        self.updates, self.last = 0, dict[str, float]()

    @property
    def learned_from(self) -> int:
        """Decisions of all updates so far."""
        return int(self.updates * self.n_steps * self.n_envs)

    def train(self) -> None:
        policy = self.policy
        assert isinstance(policy, HeadPolicy)
        policy.set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        clip = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        sums: dict[str, float] = {}
        count = 0
        for _ in range(self.n_epochs):
            for data in self.rollout_buffer.get(self.batch_size):
                values, log_chance, _ = policy.evaluate_actions(data.observations, data.actions)
                advantage = data.advantages
                if len(advantage) > 1:  # a single one has no spread
                    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                ratio = (log_chance - data.old_log_prob).exp()
                gain = torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)).mean()
                value = nn.functional.mse_loss(values.flatten(), data.returns)
                divergence = self._divergence(data.observations)
                loss = 0.5 * value
                if self.updates >= self._warmup:
                    loss = loss - gain + self._weight * divergence
                if not bool(loss.isfinite()):
                    raise diverged(int(self.num_timesteps), "finetune.learning_rate")
                policy.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                policy.optimizer.step()
                count += 1
                for name, number in (("gain", gain), ("value", value), ("divergence", divergence)):
                    sums[name] = sums.get(name, 0.0) + float(number.detach())
        self.updates += 1
        self._n_updates += self.n_epochs
        deviation = float(policy.log_std.detach().exp().mean())
        reward = float(self.rollout_buffer.rewards.mean())
        self.last = {name: round(total / count, 5) for name, total in sums.items()}
        self.last |= {"deviation": round(deviation, 4), "reward": round(reward, 4)}

    def _divergence(self, features: Tensor) -> Tensor:
        """Kullback and Leibler's, of Gaussians of the same width, from the mean that was cloned."""
        assert isinstance(self.policy, HeadPolicy)
        if self._rehearsed is not None:
            chosen = torch.randint(len(self._rehearsed), (len(features),), generator=self._chance)
            features = torch.cat([features, self._rehearsed[chosen]])
        with torch.no_grad():
            before = self._before(features)
            width = self.policy.log_std.exp()
        return (((self.policy.mean(features) - before) / width) ** 2 / 2).sum(-1).mean()
