"""What all action heads do, and decisions by vote: one action head per voter, each with features of its own.

B batch, R voters, S chunk steps, A action dimensions, F feature width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vla_policy.layers import multi_layer, residual_layers

BIN = 0.1  # actions vote for the same thing if they fall into the same bin of this width


@dataclass(frozen=True, kw_only=True)
class HeadSetup:
    """What every action head is built with: steps S of a chunk, width of the hidden layers, width F of the features,
    action dimensions A, and residual blocks.
    """

    chunk: int
    hidden: int
    features: int
    actions: int
    blocks: int = 0

    def network(self, before: int, after: int) -> nn.Sequential:
        """The hidden layers, between this many features and numbers."""
        if self.blocks:
            return residual_layers(before, self.hidden, after, self.blocks)
        return multi_layer([before, self.hidden, self.hidden, after])


class ActionHead(nn.Module):
    """Features `(B, F)` → a chunk of actions `(B, S, A)`.

    `loss_scale` is what the loss is multiplied by where it is added to others: it brings the gradient that reaches the
    features to about that of `chunk_l1`. Likelihoods have gradients several times as large, which would outweigh those
    of the grounding losses.
    """

    loss_scale: float = 1.0

    def act(self, features: Tensor) -> Tensor:
        """Actions in [-1, 1]; the same for the same features."""
        raise NotImplementedError

    def loss(self, features: Tensor, action_BSA: Tensor, mask_BS: Tensor) -> Tensor:
        """Over the steps whose mask is True; zero if there is none."""
        raise NotImplementedError


class VotingHead(ActionHead):
    """Counts the votes of R heads.

    - majority: the mean of the voters in the bin that holds most of their actions. If all differ, the median.
    - weighted: the mean, weighted by learned trust: a softmax over the voters that learns which of them errs least.
    - soft: the mean. (For distributions over bins, the mean of their expectations is that of their mean.)
    """

    def __init__(
        self, rule: Literal["majority", "weighted", "soft"], voters: int, make_head: Callable[[], ActionHead]
    ) -> None:
        super().__init__()
        self.rule = rule
        heads = [make_head() for _ in range(voters)]
        self.heads, self.loss_scale = nn.ModuleList(heads), heads[0].loss_scale
        self.trust = nn.Parameter(torch.zeros(voters)) if rule == "weighted" else None

    def act(self, features: Tensor) -> Tensor:
        """From `(B, R, F)`."""
        votes = torch.stack([head.act(features[:, r]) for r, head in enumerate(self._heads())], dim=1)
        if self.rule == "majority":
            return majority(votes)
        if self.trust is None:
            return votes.mean(1)
        return (votes * self.trust.softmax(0)[:, None, None]).sum(1)

    def loss(self, features: Tensor, action_BSA: Tensor, mask_BS: Tensor) -> Tensor:
        """The voters' mean loss, from `(B, R, F)`; trust moves to those whose loss is small."""
        losses = torch.stack([head.loss(features[:, r], action_BSA, mask_BS) for r, head in enumerate(self._heads())])
        if self.trust is None:
            return losses.mean()
        relative = losses.detach() - losses.detach().mean()
        return losses.mean() + (self.trust.softmax(0) * relative).sum()

    def _heads(self) -> list[ActionHead]:
        return list(self.heads)  # type: ignore[arg-type]


def majority(votes_BRSA: Tensor) -> Tensor:
    """The mean of the voters in the fullest bin, for every step and dimension; the median if no two agree."""
    bins = ((votes_BRSA + 1) / BIN).floor().clamp(max=round(2 / BIN) - 1)  # the last one holds a full command
    agree_BRRSA = bins[:, :, None] == bins[:, None]
    count_BRSA = agree_BRRSA.sum(2)
    # The fullest bin; of two equally full ones, the bin of the voter nearest to the median.
    middle = (votes_BRSA.shape[1] - 1) // 2  # as torch's median, which ONNX has not
    off = (votes_BRSA - votes_BRSA.sort(dim=1).values[:, middle, None]).abs()
    winner = (count_BRSA - off / (1 + off)).argmax(dim=1, keepdim=True)
    with_winner = agree_BRRSA.gather(2, winner[:, None].expand(-1, votes_BRSA.shape[1], -1, -1, -1)).squeeze(2)
    decided: Tensor = (votes_BRSA * with_winner).sum(1) / with_winner.sum(1)
    return decided
