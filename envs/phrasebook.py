"""Words for tasks that come without any: ways to ask for what is to be done, and names of the thing that is meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

Phrasing = Literal["train", "held_out"]
Parts = tuple[tuple[str, ...], tuple[str, ...]]  # ways, with {} where the name goes, and names


class Phrasebook:
    """Every way with every name is a text. Of W ways and N names, N texts are held out, each of other parts that
    training texts have: every word is known from training, and no held-out text is.

    Args:
        parts: of each task, by name.
    """

    def __init__(self, parts: Mapping[str, Parts]) -> None:
        self._parts = parts

    def texts(self, task: str, phrasing: Phrasing) -> tuple[str, ...]:
        """All texts of a task, for training or those that are held out."""
        ways, names = self._parts[task]
        held_out = phrasing == "held_out"
        return tuple(
            way.format(name)
            for i, way in enumerate(ways)
            for j, name in enumerate(names)
            if ((i + j) % len(ways) == 0) == held_out
        )

    def say(self, task: str, phrasing: Phrasing, rng: np.random.Generator) -> str:
        """One of a task's texts."""
        choice = self.texts(task, phrasing)
        return choice[rng.integers(len(choice))]

    def name_of(self, task: str) -> str:
        """What the thing is called that a task is about."""
        return self._parts[task][1][0]
