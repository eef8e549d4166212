"""What moves the weights: AdamW, at which rate each of them learns, and the moving average that is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from configs.training import TrainConfig
from vla_policy.policy import VLAPolicy
from vla_policy.timm_stem import TimmStem


def make_optimizer(policy: VLAPolicy, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over everything that is trained."""
    groups = _groups(policy, config)
    return torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, 0.98), fused=True)


def _groups(policy: VLAPolicy, config: TrainConfig) -> list[dict[str, Any]]:
    """Weights that decay and those that do not; of both, those of a timm model apart where their rate is another."""
    embeddings = {id(m.weight) for m in policy.modules() if isinstance(m, nn.Embedding)}
    stems = [m for m in policy.modules() if isinstance(m, TimmStem)] if config.backbone_rate != 1 else []
    apart = {id(p) for stem in stems for p in stem.model.parameters()}
    parameters = [p for p in policy.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for share, chosen in (
        (1.0, [p for p in parameters if id(p) not in apart]),
        (config.backbone_rate, [p for p in parameters if id(p) in apart]),
    ):
        decayed = [p for p in chosen if p.ndim > 1 and id(p) not in embeddings]
        plain = [p for p in chosen if p.ndim <= 1 or id(p) in embeddings]
        groups.append({"params": decayed, "weight_decay": config.weight_decay, "share": share})
        groups.append({"params": plain, "weight_decay": 0.0, "share": share})
    return [group for group in groups if group["params"]]


def rising_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Moving average whose decay rises to its final value, so that early weights are soon forgotten."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + n) / (10 + n)))

    return update
