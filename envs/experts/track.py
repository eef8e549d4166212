"""Expert for `track` and `track_motion`: move with the target and close the gap to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.arm import MAX_SPEED
from envs.experts.reach import limited
from envs.scene import CONTROL_HZ

GAIN = 4.0  # 1/s


def track(privileged: dict[str, Any]) -> np.ndarray:
    """The action (dx, dy) in [-1, 1]."""
    target = privileged["target"]
    velocity = privileged["velocities"][target]
    ahead = privileged["positions"][target, :2] + velocity / CONTROL_HZ
    return limited((velocity + GAIN * (ahead - privileged["hand"][:2])) / MAX_SPEED[:2])
