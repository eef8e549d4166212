"""What stands in the scene's slots during an episode, and where it is at every tick."""

from __future__ import annotations

import numpy as np

from envs.tabletop.arm import WORKSPACE
from envs.tabletop.episode import Layout
from envs.tabletop.objects import SLOTS
from envs.tabletop.scene import PARKED


class Slots:
    """An episode's objects in their slots; those left over have no name, are not `present` and wait out of sight.

    `names`, `kinds` of the events in their words, `present` and `half_heights` in metres have an entry a slot;
    `positions` (K, SLOTS, 3) are metres at the ramp rate.
    """

    def __init__(self, layout: Layout) -> None:
        count = len(layout.objects)
        hidden = SLOTS - count
        self.names = (*(o.name for o in layout.objects), *[""] * hidden)
        kinds = [None if words is None else words.event for words in layout.referents]
        self.kinds = (*kinds, *[None] * hidden)
        self.present = np.arange(SLOTS) < count
        self.half_heights = np.zeros(SLOTS)
        self.half_heights[:count] = [o.half_height for o in layout.objects]
        waiting = [(PARKED[0], PARKED[1], PARKED[2] - i) for i in range(SLOTS)]
        self.positions = np.tile(waiting, (layout.paths.shape[1], 1, 1))
        self.positions[:, :count, :2] = layout.paths.swapaxes(0, 1)
        self.positions[:, :count, 2] = self.half_heights[:count]

    def at(self, tick: int) -> np.ndarray:
        """Where all slots are at a tick, (SLOTS, 3) metres."""
        positions: np.ndarray = self.positions[min(tick, len(self.positions) - 1)]
        return positions

    def move(self, index: int, place: np.ndarray, tick: int) -> np.ndarray:
        """Put an object at a tick as near to a place as the hand can go; from there it moves on. Where: (2,) metres."""
        wanted: np.ndarray = np.clip(place[:2], *WORKSPACE[:, :2])
        path = self.positions[min(tick, len(self.positions) - 1) :, index, :2]
        path[:] = np.clip(path + (wanted - path[0]), *WORKSPACE[:, :2])
        return wanted
