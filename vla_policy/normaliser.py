"""Normalisation of proprioception: statistics are buffers, so that they travel with the weights.

P proprioception.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_policy.layers import FullPrecisionBuffers


class Normaliser(FullPrecisionBuffers):
    """`(x - mean) / std` per dimension; refuses to work before `set_statistics` or loading."""

    mean: Tensor
    std: Tensor
    ready: Tensor

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("std", torch.ones(dimensions))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))
        self._checked = False

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Both `(P,)`. Dimensions that hardly vary keep a scale of 0.01, so that noise is not blown up."""
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ValueError(f"statistics {tuple(mean.shape)} must be {tuple(self.mean.shape)}")
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=0.01))
        self.ready.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        if not self._checked:
            if not bool(self.ready):
                raise ValueError("the normaliser has no statistics; call set_statistics or load a checkpoint first")
            self._checked = True
        return (x - self.mean) / self.std
