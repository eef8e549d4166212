"""Expert for `track_event`: at home until the event, then over the object or down onto it, then home again.

Phases: WAIT and RETURN (no event: go home and stay), FOLLOW (hover over the object and move with it), TOUCH (down onto
it, for what has come to rest).
"""

from __future__ import annotations

import numpy as np

from envs.arm import MAX_SPEED
from envs.experts.reach import limited, reach
from envs.experts.situation import Situation
from envs.experts.track import GAIN
from envs.scene import CONTROL_HZ
from envs.tasks.track import HOVER_HEIGHT
from envs.tasks.track_event import HOME


def track_event(now: Situation) -> np.ndarray:
    """The action (dx, dy, dz) in [-1, 1] that each object's instruction asks for, (..., O, 3)."""
    goal, pace = now.positions.copy(), np.zeros_like(now.positions)
    goal[..., 2] = HOVER_HEIGHT
    goal[..., :2] += now.velocities / CONTROL_HZ
    pace[..., :2] = now.velocities
    follow = limited((pace + GAIN * (goal - now.hand)) / MAX_SPEED[:3])
    home = limited(GAIN * (HOME - now.hand) / MAX_SPEED[:3])
    touched = np.array([kind == "stop" for kind in now.kinds])
    there = np.where(touched[:, None], reach(now), follow)
    action: np.ndarray = np.where(np.expand_dims(now.active, -1), there, home)
    return action
