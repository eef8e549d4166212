"""What Fetch's tasks are called in words: our own, because Gymnasium-Robotics has none.

Four ways to ask for it and four names for the thing make sixteen texts of each task. Four of them are held out, each of
other parts that training texts have: every word is known from training, and no held-out text is. Tasks that share a
scene are told apart by words alone: `reach` names no block.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Phrasing = Literal["train", "held_out"]

_BLOCK = ("block", "dark block", "cube", "small dark cube")

_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "reach": (
        (
            "reach for the {}",
            "move the gripper to the {}",
            "bring the empty hand to the {}",
            "touch the {} with the fingers",
        ),
        ("red ball", "red sphere", "red marker", "red dot"),
    ),
    "push": (
        (
            "push the {} to the red marker",
            "slide the {} along the table to the red marker",
            "shove the {} across the table to the red dot",
            "with the gripper closed, push the {} onto the red dot",
        ),
        _BLOCK,
    ),
    "pick-and-place": (
        (
            "pick up the {} and bring it to the red marker",
            "grasp the {} and carry it to the red marker",
            "take the {} and hold it at the red dot",
            "grab the {} between the fingers and move it to the red dot",
        ),
        _BLOCK,
    ),
}


def texts(task: str, phrasing: Phrasing) -> tuple[str, ...]:
    """All texts of a task, for training or those that are held out."""
    ways, names = _PARTS[task]
    held_out = phrasing == "held_out"
    return tuple(
        way.format(name)
        for i, way in enumerate(ways)
        for j, name in enumerate(names)
        if ((i + j) % len(ways) == 0) == held_out
    )


def say(task: str, phrasing: Phrasing, rng: np.random.Generator) -> str:
    """One of a task's texts."""
    choice = texts(task, phrasing)
    return choice[rng.integers(len(choice))]


def name_of(task: str) -> str:
    """What the thing is called that a task is about."""
    return _PARTS[task][1][0]
