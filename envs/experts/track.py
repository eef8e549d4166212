"""Expert for `track`, `track_motion` and `track_occlusion`: move with the target and close the gap to it."""

from __future__ import annotations

import numpy as np

from envs.arm import MAX_SPEED
from envs.experts.reach import limited
from envs.experts.situation import Situation
from envs.scene import CONTROL_HZ

GAIN = 4.0  # 1/s


def track(now: Situation) -> np.ndarray:
    """The action (dx, dy) in [-1, 1] towards each object, (..., O, 2)."""
    ahead = now.positions[..., :2] + now.velocities / CONTROL_HZ
    return limited((now.velocities + GAIN * (ahead - now.hand[..., :2])) / MAX_SPEED[:2])
