"""What an expert knows: one row an object, so that one call answers for every object that may be meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Situation:
    """positions (..., O, 3) of the objects' centres in metres, velocities (..., O, 2) in m/s, half_heights (O,) in
    metres, and hand (..., O, 3), the pinch point in metres: when plans are made it differs by the object gone to.

    active (..., O) bool, or one for all: whether the event of the object's instruction holds. kinds (O,): the kind of
    that event, None where the instruction is to act at once; empty if there is none with an event.
    """

    positions: np.ndarray
    velocities: np.ndarray
    half_heights: np.ndarray
    hand: np.ndarray
    active: np.ndarray | bool = True
    kinds: tuple[str | None, ...] = ()

    @classmethod
    def of(cls, privileged: dict[str, Any]) -> Situation:
        """From `info["privileged"]`."""
        return cls(
            positions=privileged["positions"],
            velocities=privileged["velocities"],
            half_heights=privileged["half_heights"],
            hand=np.broadcast_to(privileged["hand"], privileged["positions"].shape),
            active=privileged["active"],
            kinds=privileged["kinds"],
        )
