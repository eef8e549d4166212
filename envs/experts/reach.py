"""Expert for `reach`: over the target first, then down, as one smooth feedback law.

Phases: APPROACH (far to the side: stay high), DESCEND (above the target: go down to the hover point).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.arm import MAX_SPEED
from envs.tasks.reach import HOVER

GAIN = 5.0  # 1/s
SAFE_HEIGHT = 0.07  # above the hover point while still to the side, metres
FUNNEL = (0.03, 0.09)  # horizontal distance at which the descent is complete, and at which it starts, metres


def reach(privileged: dict[str, Any]) -> np.ndarray:
    """The action (dx, dy, dz) in [-1, 1]."""
    target, hand = privileged["target"], privileged["hand"]
    goal = privileged["positions"][target].copy()
    goal[2] += privileged["half_heights"][target] + HOVER
    aside = float(np.linalg.norm(goal[:2] - hand[:2]))
    goal[2] += SAFE_HEIGHT * np.clip((aside - FUNNEL[0]) / (FUNNEL[1] - FUNNEL[0]), 0.0, 1.0)
    action = GAIN * (goal - hand) / MAX_SPEED[:3]
    return limited(action)


def limited(action: np.ndarray) -> np.ndarray:
    """Scale an action so that no component exceeds 1, keeping its direction."""
    return (action / max(1.0, float(np.abs(action).max()))).astype(np.float32)
