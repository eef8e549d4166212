"""The state of a run, to resume from: weights, their average, the optimiser, the step. Written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from vla_policy.policy import VLAPolicy

FILE = "state.pt"


def save_state(
    path: Path, step: int, policy: VLAPolicy, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> None:
    """Save it in the folder `path`; the one before is replaced once this one is whole."""
    values = {
        "step": step,
        "policy": policy.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = path.with_name(f".{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    torch.save(values, partial)
    path.mkdir(exist_ok=True)
    os.replace(partial, path / FILE)


def has_state(path: Path) -> bool:
    """Whether there is a saved state in this folder."""
    return (path / FILE).is_file()


def load_state(path: Path, policy: VLAPolicy, average: AveragedModel, optimizer: torch.optim.Optimizer) -> int:
    """Put a saved state back in place; returns its step.

    Raises:
        ValueError: the file is missing, damaged or of another policy.
    """
    file = path / FILE
    try:
        # weights_only reads tensors and plain values and executes nothing.
        values = torch.load(file, map_location="cpu", weights_only=True)
        policy.load_state_dict(values["policy"])
        average.load_state_dict(values["average"])
        optimizer.load_state_dict(values["optimizer"])
        return int(values["step"])
    except Exception as error:  # noqa: BLE001 - torch.load raises many kinds; all mean the same to the user
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise ValueError(f"{file}: not a state of this run ({reason}); remove the folder and train anew") from None
