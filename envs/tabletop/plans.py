"""Scripted experts, by task. An expert maps a situation to a clean action towards every object in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from envs.tabletop.arm import ACTION_NAMES, MAX_SPEED, WORKSPACE
from envs.tabletop.scene import CONTROL_HZ
from envs.tabletop.situation import Situation
from envs.tabletop.tasks.reach import expert as reach
from envs.tabletop.tasks.track import expert as track
from envs.tabletop.tasks.track_event import expert as track_event

Expert = Callable[[Situation], np.ndarray]

EXPERTS: dict[str, Expert] = {
    "reach": reach,
    "track": track,
    "track_motion": track,
    "track_occlusion": track,
    "track_event": track_event,
}


def expert_action(task: str, privileged: dict[str, Any]) -> np.ndarray:
    """What the task's expert does now, (A,) in [-1, 1], given `info["privileged"]`."""
    action: np.ndarray = EXPERTS[task](Situation.of(privileged))[privileged["target"]]
    return action


def plan(
    expert: Expert,
    action_names: tuple[str, ...],
    *,
    positions: np.ndarray,
    velocities: np.ndarray,
    half_heights: np.ndarray,
    hands: np.ndarray,
    steps: int,
    active: np.ndarray | None = None,
    kinds: tuple[str | None, ...] = (),
) -> np.ndarray:
    """From each of K successive moments on, the expert's next S actions towards each of O objects, `(K, O, S, A)`.

    The objects move as they will have moved; the hand moves as the actions tell it to, at once and exactly. So these
    are the labels of a chunk of actions that is carried out as planned, whatever was really done at those moments.
    Whether an instruction's event holds is taken as of the moment for the whole plan: nobody who is to act on it can
    know that an event will begin or end on the way.

    Args:
        positions: (K, O, 3); velocities: (K, O, 2); half_heights: (O,); hands: (K, 3). Past the last moment the
            objects are taken to stay where they are; actions planned for then are of no use.
        steps: S.
        active: (K, O) bool, whether the event holds; None for always. kinds: (O,), as in `Situation`.
    """
    moments, objects = positions.shape[:2]
    axes = [ACTION_NAMES.index(name) for name in action_names]
    actions = np.empty((moments, objects, steps, len(axes)), np.float32)
    hand = np.repeat(hands[:, None], objects, axis=1)
    for step in range(steps):
        later = np.minimum(np.arange(moments) + step, moments - 1)
        now = Situation(
            positions=positions[later],
            velocities=velocities[later],
            half_heights=half_heights,
            hand=hand,
            active=True if active is None else active,
            kinds=kinds,
        )
        actions[:, :, step] = expert(now)
        moved = np.zeros((moments, objects, len(ACTION_NAMES)))
        moved[..., axes] = actions[:, :, step] * MAX_SPEED[axes] / CONTROL_HZ
        hand = np.clip(hand + moved[..., :3], *WORKSPACE)
    return actions
