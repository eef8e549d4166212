"""What the tasks share in which things are grasped: what is known of the gripper, and how the scripted experts grasp,
over the thing, turned to its faces, down, close, also where the thing moves; and how they bring what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from envs.contact.base import ContactTask, limited
from envs.rewards import near
from envs.tabletop.arm import MAX_SPEED

GAIN = 5.0  # 1/s
OVER = 0.09  # height of the pinch point above a thing on the way to it, metres
FUNNEL = (0.010, 0.03)  # distance beside the thing within which the hand is low, and beyond which it is high, metres
NEAR = 0.012  # distance from the thing's middle at which the fingers close, metres
ROOM = 0.006  # metres by which each finger must be open wider than the thing to go down
ASKEW = np.deg2rad(8)  # how far the hand may be turned from a face to go down
OFF_THE_GROUND = 0.005  # how much higher than at the start what is held is in the air, metres
LEAD = 0.05  # seconds by which what is seen is older than what is done


class GraspTask(ContactTask):
    """A task in which the gripper opens and closes; `gripped` (N,) are the bodies that both fingers held so far."""

    actions: ClassVar[tuple[str, ...]] = ("dx", "dy", "dz", "yaw_rate", "gripper")
    gripped: np.ndarray

    def note(self) -> None:
        super().note()
        if self.step_count == 0:
            self.gripped = np.zeros(len(self.bodies), np.bool_)
        self.gripped |= self.table.props.touching().all(axis=1)

    def knowledge(self) -> Mapping[str, Any]:
        """Also `yaw` of the hand and `yaws` (N,) of the bodies, radians; `opening`, how far each finger is from the
        middle, metres; `gripped` (N,), which bodies both fingers touch now.
        """
        props, seen = self.table.props, self.table.arm.agent_pos()
        return {
            **super().knowledge(),
            "yaw": float(np.arctan2(seen[3], seen[4])),
            "opening": float(seen[5]),
            "yaws": props.yaws,
            "gripped": props.touching().all(axis=1),
        }

    def grasp_terms(self) -> dict[str, float]:
        """Of a step's reward: up to 0.3 with the hand near what is meant, 0.5 while both fingers hold it in the air."""
        props, mine = self.table.props, self.target
        thing = props.bodies[mine]
        held = props.touching()[mine].all() and thing[2] - self.start[mine, 2] > OFF_THE_GROUND
        return {
            "approach": 0.3 * near(float(np.linalg.norm(self.table.arm.position - thing)), 0.2),
            "grasp": 0.5 * float(held),
        }


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
        carried, lowered: its heights on the way and down at the goal, metres; it goes aside from 0.6 of `carried` on.
        funnel: distance from the goal within which it is down, and beyond which it is carried, metres.
    """
    left = float(np.hypot(*to_goal))
    share = np.clip((height - 0.6 * carried) / (0.3 * carried), 0, 1) if left > funnel[1] else 1.0  # up first
    wanted = np.interp(left, funnel, (lowered, carried + 0.01))  # a little more, as the hand lags behind
    velocity = np.array([*(share * GAIN * to_goal), GAIN * (wanted - height)])
    return np.array([*limited(velocity / MAX_SPEED[:3]), 0.0, -1.0], np.float32)


def quarter(angle: float) -> float:
    """An angle to the nearest face of a cube, radians in [-π/4, π/4]."""
    return float((angle + np.pi / 4) % (np.pi / 2) - np.pi / 4)
