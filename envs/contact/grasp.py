"""How the scripted experts grasp, over the thing, turned to its faces, down, close, also where the thing moves; and how
they bring what they hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.contact.base import limited
from envs.tabletop.arm import MAX_SPEED

GAIN = 5.0  # 1/s
OVER = 0.09  # height of the pinch point above a thing on the way to it, metres
FUNNEL = (0.010, 0.03)  # distance beside the thing within which the hand is low, and beyond which it is high, metres
NEAR = 0.012  # distance from the thing's middle at which the fingers close, metres
ROOM = 0.006  # metres by which each finger must be open wider than the thing to go down
ASKEW = np.deg2rad(8)  # how far the hand may be turned from a face to go down
LEAD = 0.05  # seconds by which what is seen is older than what is done


def grasp(known: dict[str, Any], index: int, half: float, *, faces: bool) -> np.ndarray:
    """The action (5,) in [-1, 1] that grasps body `index`, which is not held yet.

    Args:
        known: what the task's `knowledge` says; `velocities` (N, 3) and `turning` (N,) where things move.
        half: of the thing's width, metres.
        faces: whether it has faces to turn to, as a cube, or none, as a ball.
    """
    hand, thing = known["hand"], known["bodies"][index]
    moving = known["velocities"][index] if "velocities" in known else np.zeros(3)
    turning = float(known["turning"][index]) if "turning" in known else 0.0
    to_thing = thing + LEAD * moving - hand
    turn = quarter(known["yaws"][index] + LEAD * turning - known["yaw"]) if faces else 0.0
    aside = float(np.hypot(*to_thing[:2]))
    gripper = 1.0
    if aside < NEAR and abs(to_thing[2]) < NEAR and abs(turn) < 2 * ASKEW:  # close
        velocity, gripper = np.array([*(GAIN * to_thing[:2]), 0.0]), -1.0
    else:
        height = OVER * np.clip((aside - FUNNEL[0]) / (FUNNEL[1] - FUNNEL[0]), 0, 1)
        if abs(turn) > ASKEW or known["opening"] < half + ROOM:  # turn and open before going down
            height = max(height, 0.5 * OVER)
        velocity = GAIN * (to_thing + np.array([0, 0, height]))
        if hand[2] - thing[2] < 0.4 * OVER and aside > FUNNEL[1]:  # up before going aside
            velocity[:2] = 0.0
    velocity[:2] += moving[:2]
    yaw_rate = np.clip((GAIN * turn + (turning if faces else 0.0)) / MAX_SPEED[3], -1, 1)
    return np.array([*limited(velocity / MAX_SPEED[:3]), yaw_rate, gripper], np.float32)


def bring(
    to_goal: np.ndarray, height: float, *, carried: float, lowered: float, funnel: tuple[float, float]
) -> np.ndarray:
    """The action (5,) in [-1, 1] that brings what is held over its goal, and there down.

    Args:
        to_goal: from the middle of what is held, (2,) metres.
        height: of that middle, metres.
        carried, lowered: its heights on the way, and down at the goal, metres.
        funnel: distance from the goal within which it is down, and beyond which it is carried, metres.
    """
    left = float(np.hypot(*to_goal))
    share = np.clip((height - 0.6 * carried) / (0.3 * carried), 0, 1) if left > funnel[1] else 1.0  # up first
    wanted = np.interp(left, funnel, (lowered, carried + 0.01))
    velocity = np.array([*(share * GAIN * to_goal), GAIN * (wanted - height)])
    return np.array([*limited(velocity / MAX_SPEED[:3]), 0.0, -1.0], np.float32)


def quarter(angle: float) -> float:
    """An angle to the nearest face of a cube, radians in [-π/4, π/4]."""
    return float((angle + np.pi / 4) % (np.pi / 2) - np.pi / 4)
