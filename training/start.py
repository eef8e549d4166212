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
from vla_policy.policy import VLAPolicy

FROM_SETTINGS = ("frames", "cameras")  # shapes that settings of the policy decide, not data
ROBOT = ("proprioception", "actions")  # what a policy that only grounds has for form's sake
PARTS = ("encoder", "language", "fusion", "grounding", "head")


def load_start(path: Path, datasets: Sequence[Dataset]) -> Checkpoint:
    """The checkpoint in this folder, if it can go on with these data.

    Raises:
        ValueError: it is damaged, or of another robot; one that only grounds may be of any.
    """
    begun = load_checkpoint(path)
    for data in () if begun.policy.config.grounds_videos else datasets:
        check_same_robot(begun.interface, data.interface, (str(path), str(data.path)))
        for name in data.interface.action_names:
            if name not in begun.purpose.action_names:
                known = ", ".join(begun.purpose.action_names)
                raise TrainingError(f"{data.path}: has action {name!r}, the policy of {path} gives {known}")
    return begun


def take_over(path: Path, begun: VLAPolicy, config: PolicyConfig, shapes: Shapes) -> tuple[VLAPolicy, tuple[str, ...]]:
    """A policy of these settings with all parts of the one of `path` that fit, and the names of the parts that begin
    anew. A part fits if its weights have the same names and shapes. The normaliser of one that only grounds, perhaps of
    another robot, does not fit.

    Raises:
        TrainingError: no part fits, or the data do not.
    """
    same = begun.config == config
    robot = ROBOT if begun.config.grounds_videos else ()
    check_shapes(path, begun.shapes, shapes, but=robot if same else (*FROM_SETTINGS, *robot, "vocabulary"))
    if same and begun.shapes == shapes:
        return begun, ()
    policy, anew = VLAPolicy(config, shapes), []
    if not robot:
        policy.normaliser.load_state_dict(begun.normaliser.state_dict())
    for name in PARTS:
        before, now = (getattr(each, name).state_dict() for each in (begun, policy))
        if {key: value.shape for key, value in before.items()} == {key: value.shape for key, value in now.items()}:
            getattr(policy, name).load_state_dict(before)
        else:
            anew.append(name)
    if len(anew) == len(PARTS):
        raise TrainingError(f"{path}: no part of that policy fits the settings of this one; train without it")
    return policy, tuple(anew)


def check_shapes(path: Path, begun: Shapes, shapes: Shapes, but: Sequence[str] = ()) -> None:
    """Refuse data of other shapes than those that a policy was built for, except for some.

    Raises:
        TrainingError: what differs first.
    """
    before, now = asdict(begun), asdict(shapes)
    for name, value in before.items():
        if now[name] != value and name not in but:
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
