"""Expert for `reach`: over the target first, then down, as one smooth feedback law.

Phases: APPROACH (far to the side: stay high), DESCEND (above the target: go down to the hover point).
"""

from __future__ import annotations

import numpy as np

from envs.arm import MAX_SPEED
from envs.experts.situation import Situation
from envs.tasks.reach import HOVER

GAIN = 5.0  # 1/s
SAFE_HEIGHT = 0.07  # above the hover point while still to the side, metres
FUNNEL = (0.03, 0.09)  # horizontal distance at which the descent is complete, and at which it starts, metres


def reach(now: Situation) -> np.ndarray:
    """The action (dx, dy, dz) in [-1, 1] towards each object, (..., O, 3)."""
    goal = now.positions.copy()
    goal[..., 2] += now.half_heights + HOVER
    aside = np.hypot(goal[..., 0] - now.hand[..., 0], goal[..., 1] - now.hand[..., 1])
    goal[..., 2] += SAFE_HEIGHT * np.clip((aside - FUNNEL[0]) / (FUNNEL[1] - FUNNEL[0]), 0.0, 1.0)
    return limited(GAIN * (goal - now.hand) / MAX_SPEED[:3])


def limited(action: np.ndarray) -> np.ndarray:
    """Scale actions (..., A) so that no component exceeds 1, keeping their directions."""
    return (action / np.maximum(1.0, np.abs(action).max(axis=-1, keepdims=True))).astype(np.float32)
