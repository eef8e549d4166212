"""The state of a run, to resume from: weights, their average, the optimiser, the step. Written whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from vla_policy.policy import VLAPolicy


def save_state(
    path: Path, step: int, policy: VLAPolicy, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> None:
    partial, previous = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.previous")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    values = {
        "step": step,
        "policy": policy.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(values, partial / "state.pt")
    shutil.rmtree(previous, ignore_errors=True)
    if path.exists():
        os.replace(path, previous)
    os.replace(partial, path)
    shutil.rmtree(previous, ignore_errors=True)


def load_state(
    path: Path, policy: VLAPolicy, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> int:
    """Put a saved state back in place; returns its step.

    Raises:
        ValueError: the file is missing, damaged or of another policy.
    """
    file = path / "state.pt"
    try:
        # weights_only reads tensors and plain values and executes nothing.
        values = torch.load(file, map_location="cpu", weights_only=True)
        policy.load_state_dict(values["policy"])
        average.load_state_dict(values["average"])
        optimizer.load_state_dict(values["optimizer"])
        return int(values["step"])
    except Exception as error:  # torch.load raises many kinds; all mean the same to the user
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file}: not a state of this run ({reason}); remove the folder and train anew") from None
