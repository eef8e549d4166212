"""The state of a run, to resume from: weights, their average, the optimiser, the step. Written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from configs.disk import filling, require_room
from vla_policy.policy import VLAPolicy

FILE = "state.pt"
KEPT = "A state saved before is kept"


def save_state(
    path: Path, step: int, policy: VLAPolicy, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> None:
    """Save it in the folder `path`; the one before is replaced once this one is whole.

    Raises:
        DiskFullError: there is no room for it; the one before is kept.
    """
    values = {
        "step": step,
        "policy": policy.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = path.with_name(f".{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        require_room(path / FILE, _size(values), f"the state of step {step}", KEPT)
        with filling(path / FILE, KEPT):
            torch.save(values, partial)
            path.mkdir(exist_ok=True)
            os.replace(partial, path / FILE)
    finally:
        partial.unlink(missing_ok=True)


def _size(values: Any) -> int:
    """Bytes of all tensors."""
    if isinstance(values, torch.Tensor):
        return values.nbytes
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return sum(map(_size, inner))


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
        broken = [name for name, value in values["policy"].items() if not _finite(value)]
        if broken:
            raise ValueError(f"{broken[0]!r} has values that are not finite")
        policy.load_state_dict(values["policy"])
        average.load_state_dict(values["average"])
        optimizer.load_state_dict(values["optimizer"])
        return int(values["step"])
    except Exception as error:  # noqa: BLE001 - torch.load raises many kinds; all mean the same to the user
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise ValueError(f"{file}: not a state of this run ({reason}); remove the folder and train anew") from None


def _finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())
