"""What a training may begin with in place of random weights: the checkpoint of another, and the state beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from configs.interface import check_same_robot
from configs.policy import PolicyConfig
from training.data.episodes import Dataset, checksum
from training.error import TrainingError
from training.run_folder import STATE
from vla_policy.checkpoint import WEIGHTS, Checkpoint, load_checkpoint
from vla_policy.contract import Shapes


def load_start(path: Path, config: PolicyConfig, datasets: Sequence[Dataset]) -> Checkpoint:
    """The checkpoint in this folder, if it can go on with these data.

    Raises:
        ValueError: it is damaged, of a policy with other settings, or of another robot.
    """
    begun = load_checkpoint(path)
    if begun.policy.config != config:
        raise TrainingError(f"{path}: is of a policy with other settings than `policy`; give those it was trained with")
    for data in datasets:
        check_same_robot(begun.interface, data.interface, (str(path), str(data.path)))
        for name in data.interface.action_names:
            if name not in begun.purpose.action_names:
                known = ", ".join(begun.purpose.action_names)
                raise TrainingError(f"{data.path}: has action {name!r}, the policy of {path} gives {known}")
    return begun


def check_shapes(path: Path, begun: Shapes, shapes: Shapes) -> None:
    """Refuse data of other shapes than those that a policy was built for.

    Raises:
        TrainingError: what differs first.
    """
    before, now = asdict(begun), asdict(shapes)
    for name, value in before.items():
        if now[name] != value:
            raise TrainingError(f"{path}: was trained on {name} {value}, the data have {now[name]}")


def state_beside(path: Path) -> Path:
    """Where the state of the run is that made a checkpoint, if it was kept."""
    return path.parent / STATE


def weights_print(path: Path) -> str:
    """Twelve hexadecimal digits that change with any of a checkpoint's weights.

    Raises:
        TrainingError: there are none.
    """
    file = path / WEIGHTS
    if not file.is_file():
        raise TrainingError(f"{file}: missing; choose another checkpoint or train again")
    return checksum(file)[:12]
