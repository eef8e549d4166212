"""Whether a run is still worth going on with, asked before its state is saved: a diverged one must not replace the last
good one.
"""

from __future__ import annotations

import math

import torch
from torch import nn

LARGEST = 1e6  # of a weight
GROWN = 1e3  # times the loss at the beginning, or times one where that is less


def diverged(module: nn.Module, loss: float, beginning: float) -> str:
    """What shows that training has diverged; empty if nothing does.

    Args:
        loss: of the newest step.
        beginning: the loss of the run's first steps.
    """
    if not math.isfinite(loss) or loss > GROWN * max(1.0, abs(beginning)):
        return f"the loss was {beginning:.3g} and is {loss:.3g}"
    for name, value in module.named_parameters():
        largest = value.detach().abs().max() if value.numel() else torch.zeros(())
        if not bool(largest <= LARGEST):
            return f"{name} has a weight of {float(largest):.3g}"
    return ""
