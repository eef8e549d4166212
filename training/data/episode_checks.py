"""What an episode, and a header, must be before they are written; `training.data.episodes` says what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.data.episodes import (
    NAMED_AXES,
    PER_STEP,
    PICTURES,
    RANKS,
    THING_AXIS,
    DatasetError,
    Episode,
    are_pictures,
    read_interface,
    reason_of,
)


def checked_header(path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """A header that says all that it must.

    Raises:
        DatasetError: it does not.
    """
    missing = {"task", "control_hz"} - set(header)
    try:
        if missing:
            raise KeyError(min(missing))
        if not isinstance(header["task"], str) or not header["task"]:
            raise TypeError(f"task {header['task']!r} must be a name")
        read_interface(dict(header))
        json.dumps(dict(header), allow_nan=False)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: the header does not describe the robot: {reason_of(error)}") from None
    return dict(header)


def mistake_in(episode: Episode) -> str:
    """Why an episode cannot be written, empty if it can."""
    if episode.pixels.dtype != np.uint8:
        return f"pixels are {episode.pixels.dtype}, expected uint8"
    if episode.pixels.ndim != 5 or not are_pictures(episode.pixels):
        return f"pixels are {episode.pixels.shape}, expected {PICTURES}"
    if not len(episode):
        return "it has no steps"
    if (episode.boxes is None) != (episode.visible is None):
        return "boxes and visible must both be there or neither"
    goals = episode.goal_boxes is not None
    if goals != (episode.goal_visible is not None) or (goals and episode.boxes is None):
        return "goal_boxes and goal_visible must both be there or neither, and only beside boxes"
    things = episode.action.shape[1] if episode.action.ndim == 4 else 0
    if not things or episode.events.shape != (things, 2) or len(episode.instructions) != things:
        shapes = (
            f"action {episode.action.shape}, events {episode.events.shape}, {len(episode.instructions)} instructions"
        )
        return f"{shapes}; expected action (K, O, S, A), events (O, 2) and O instructions"
    texts = episode.instructions
    if not all(text is None or isinstance(text, str) for text in texts):
        return f"instructions {texts!r} must be texts, or None where no words single a thing out"
    target: Any = episode.target
    if not isinstance(target, int | np.integer) or not 0 <= target < things or not texts[target]:
        return f"target {target!r} must be one of the {things} things, and have an instruction"
    seed: Any = episode.seed
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        return "its seed must be a whole number from 0 to 2^63"
    begin, end = episode.events[:, 0], episode.events[:, 1]
    if ((begin < 0) | (end < begin) | (end > len(episode))).any():
        return f"events {episode.events.tolist()} must be parts of its {len(episode)} steps"
    if not np.isfinite(episode.agent_pos).all():
        return "agent_pos must be finite"
    for name, boxes in (("boxes", episode.boxes), ("goal_boxes", episode.goal_boxes)):
        if boxes is not None and not (boxes.shape[-1:] == (4,) and _in_picture(boxes)):
            return f"{name} {boxes.shape} must be (cx, cy, w, h) in [0, 1] of the picture"
    for name in PER_STEP:
        rows = getattr(episode, name)
        if rows is not None and (rows.ndim != RANKS[name] or len(rows) != len(episode)):
            return f"{name} {rows.shape} must have {RANKS[name]} axes, of which the first is {len(episode)} steps"
        if rows is not None and name in THING_AXIS and rows.shape[THING_AXIS[name]] != things:
            return f"{name} {rows.shape} must have the {things} things of action"
    known = episode.planned
    if known is not None and not ((known >= 0) & (known <= episode.action.shape[2])).all():
        return f"planned must lie between 0 and the {episode.action.shape[2]} actions of a plan"
    for name in ("action", "executed"):
        values = getattr(episode, name)
        if not (np.abs(values) <= 1 + 1e-5).all():
            return f"{name} must lie in [-1, 1]; see envs.task.ActionScale"
    return ""


def misfit_of(episode: Episode, header: Mapping[str, Any]) -> str:
    """In what an episode is not of the robot that a header tells of, empty if in nothing."""
    for name, axis, names in NAMED_AXES:
        got = getattr(episode, name).shape[axis]
        if names in header and got != len(header[names]):
            return f"{name} has {got} of {names}, the header names {len(header[names])}"
    return ""


def _in_picture(boxes: np.ndarray) -> bool:
    return bool(((boxes >= -1e-6) & (boxes <= 1 + 1e-6)).all())
