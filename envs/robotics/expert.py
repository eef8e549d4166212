"""What demonstrates Fetch's tasks: scripted experts of our own, in phases that the state alone decides.

All places are (3,) in metres; an action of 1 moves the hand by 3.3 cm in a control step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

REACH_OF_A_STEP = 0.04  # metres by which the hand is asked to move at full speed
OPEN, CLOSE = 1.0, -1.0
GENTLY = 0.25  # share of full speed: what is close anyway gives too few pictures to learn from

TABLE = 0.4  # height of its top
HALF = 0.025  # of the block's side
LOW = 0.42  # height of the hand beside the block
ABOVE = 0.49  # height of the hand over the block, with room for the fingertips
CLEAR = 0.09  # distance from the block's middle at which no part of the hand touches it
BEHIND = 0.068  # distance from the block's middle at which the hand comes down to push
LINE = 0.022  # how far the hand may be beside the line from the block to its goal

OVER = 0.06  # height of the hand above the block's middle on its way to grasp
ALIGNED = 0.012  # how far the hand may be beside the block to come down
AT_BLOCK = 0.018  # distance of the hand from the block's middle at which the gripper closes
GRASPED = 0.053  # opening of the gripper with the block between the fingers
LIFTED = 0.02  # height above the table at which a block is carried over it


def expert(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> np.ndarray:
    """What the task's expert does now, (4,) in [-1, 1]."""
    known, name = info["privileged"], env.get_wrapper_attr("name")
    move, gripper = {"reach": _reach, "push": _push, "pick-and-place": _pick_and_place}[name](known)
    return np.clip([*(move / REACH_OF_A_STEP), gripper], -1, 1).astype(np.float32)


def _reach(known: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    return GENTLY * (known["aim"] - known["hand"]), 0.0


def _push(known: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    hand, block, aim = known["hand"], known["block"], known["aim"]
    way = aim[:2] - block[:2]
    way = way / max(float(np.linalg.norm(way)), 1e-6)
    from_block = hand[:2] - block[:2]
    behind = -float(from_block @ way)  # how far the hand is behind the block, seen from the goal
    beside = from_block + behind * way
    low = hand[2] < TABLE + 2 * HALF
    if low and behind > HALF and np.linalg.norm(beside) < LINE:  # push
        return np.array([*(0.06 * way - 0.8 * beside), LOW - hand[2]]), 0.0
    start = block[:2] - BEHIND * way
    move = np.array([*(start - hand[:2]), 0.0])
    if np.linalg.norm(move) < LINE * 0.7:  # come down behind it
        move[2] = LOW - hand[2]
        return move, 0.0
    move[2] = ABOVE - hand[2]  # go there over it
    if hand[2] < ABOVE - 0.015 and np.linalg.norm(from_block) < CLEAR and move[:2] @ from_block < 0:
        move[:2] = 0
    return move, 0.0


def _pick_and_place(known: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    hand, block, aim = known["hand"], known["block"], known["aim"]
    to_block = block - hand
    beside, distance = float(np.linalg.norm(to_block[:2])), float(np.linalg.norm(to_block))
    if distance < AT_BLOCK:
        if known["opening"] > GRASPED:  # close
            return to_block, CLOSE
        move = aim - block  # carry
        if np.linalg.norm(move[:2]) > 0.05:
            move[2] = max(move[2], TABLE + HALF + LIFTED - block[2])
        return move, CLOSE
    if beside < ALIGNED:  # come down
        return to_block, OPEN
    return to_block + np.array([0, 0, OVER]), OPEN  # go over it
