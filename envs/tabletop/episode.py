"""What an episode on the table consists of, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.tabletop.instructions import Referent
from envs.tabletop.objects import TableObject


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One episode's content: objects, their paths `(n, K, 2)` in metres at the ramp rate, and which one is meant.

    `referents[i]` are the words for object i, None where the task has no words that single it out. `events` (n, 2) int
    are the first and one-past-last control step in which the event of each object's words holds; None is the whole
    episode. `screen` is y of the screen's middle in metres, `lamp` the control step from which the lamp is green
    rather than red; None is a scene without.
    """

    objects: list[TableObject]
    paths: np.ndarray
    target: int
    referents: list[Referent | None]
    events: np.ndarray | None = None
    screen: float | None = None
    lamp: int | None = None


class EpisodeMetrics:
    """What became of the episode so far, for each of n objects; row t is the state after t control steps.

    `errors` are horizontal distances from the gripper, `heights` its height above the object's top, both
    (horizon + 1, n), and `hands` (horizon + 1, 3) where it was, all in metres; `steps` rows are filled.
    """

    def __init__(self, horizon: int, objects: int) -> None:
        self.errors = np.full((horizon + 1, objects), np.inf)
        self.heights = np.full((horizon + 1, objects), np.inf)
        self.hands = np.full((horizon + 1, 3), np.inf)
        self.steps = 0
        self.settled_on: int | None = None

    def note(self, errors: np.ndarray, heights: np.ndarray, hand: np.ndarray) -> None:
        self.errors[self.steps], self.heights[self.steps], self.hands[self.steps] = errors, heights, hand
        self.steps += 1
