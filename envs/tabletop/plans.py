"""What an expert does towards every thing in the scene: now, and planned ahead.

Objects of this scene move as they will, whatever the hand does. So an expert can say for each of them what it would
have done if that one had been meant, and one demonstration teaches what each of the scene's instructions asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from envs.tabletop.arm import ACTION_NAMES, MAX_SPEED, WORKSPACE
from envs.tabletop.scene import CONTROL_HZ
from envs.tabletop.situation import Situation

Law = Callable[[Situation], np.ndarray]  # the action towards each object, (..., O, A) in [-1, 1]


class PlanningExpert:
    """The expert of a task with a law that answers for all objects at once: an expert as in `envs.task.TaskSpec`.

    Args:
        law: the clean action towards every object.
        action_names: those that it gives, in its order.
    """

    def __init__(self, law: Law, action_names: tuple[str, ...]) -> None:
        self.law, self.action_names = law, action_names

    def __call__(self, env: Any, info: dict[str, Any]) -> np.ndarray:
        """The clean action towards the target, (A,) in [-1, 1]."""
        action: np.ndarray = self.towards(env, info)[info["privileged"]["target"]]
        return action

    def towards(self, env: Any, info: dict[str, Any]) -> np.ndarray:
        """The clean action towards every object, (O, A) in [-1, 1]."""
        return self.law(Situation.of(info["privileged"]))

    def plan(self, env: Any, infos: Sequence[dict[str, Any]], steps: int) -> np.ndarray:
        """From each of K successive moments on, the next S actions towards every object, `(K, O, S, A)`; see `plan`.

        Zeros where there is no object.

        Args:
            infos: what the environment said at these moments.
            steps: S.
        """
        known = [info["privileged"] for info in infos]
        planned = plan(
            self.law,
            self.action_names,
            positions=np.array([moment["positions"] for moment in known]),
            velocities=np.array([moment["velocities"] for moment in known]),
            half_heights=known[-1]["half_heights"],
            hands=np.array([moment["hand"] for moment in known]),
            steps=steps,
            active=np.array([moment["active"] for moment in known]),
            kinds=known[-1]["kinds"],
        )
        planned[:, ~known[-1]["present"]] = 0
        return planned


def plan(
    law: Law,
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
        actions[:, :, step] = law(now)
        moved = np.zeros((moments, objects, len(ACTION_NAMES)))
        moved[..., axes] = actions[:, :, step] * MAX_SPEED[axes] / CONTROL_HZ
        hand = np.clip(hand + moved[..., :3], *WORKSPACE)
    return actions
