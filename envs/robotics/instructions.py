"""What Fetch's tasks are called in words: our own, because Gymnasium-Robotics has none.

Four ways to ask for it and four names for the thing make sixteen texts of each task. Four of them are held out, each of
other parts that training texts have: every word is known from training, and no held-out text is. Tasks that share a
scene are told apart by words alone: `reach` names no block.
"""

from __future__ import annotations

from envs.phrasebook import Phrasebook

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

_BOOK = Phrasebook(_PARTS)
texts, say, name_of = _BOOK.texts, _BOOK.say, _BOOK.name_of
