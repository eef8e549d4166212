"""`reach`: bring the gripper to the named static object among four, and hold it there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from envs.rewards import near, rest
from envs.tabletop.arm import MAX_SPEED
from envs.tabletop.env import TabletopEnv, random_start
from envs.tabletop.episode import Layout
from envs.tabletop.instructions import Phrasing, Referent, Templates, name_object, read_object
from envs.tabletop.motion import REGION, Curve, PathSampler, place_apart, still
from envs.tabletop.objects import Combinations, crossed_objects
from envs.tabletop.plans import PlanningExpert
from envs.tabletop.situation import Situation

HORIZON = 100  # control steps: 5 s
HOVER = 0.02  # the point to reach lies this far above the object's top, metres
TOLERANCE = 0.03  # distance to that point, metres
HOLD = 10  # control steps in a row
START_HEIGHT = (0.16, 0.27)

TEMPLATES = Templates(
    train=(
        "reach the {it}",
        "reach for the {it}",
        "go to the {it}",
        "move to the {it}",
        "move the gripper to the {it}",
        "bring the gripper to the {it}",
        "bring the hand to the {it}",
        "move the hand down to the {it}",
        "touch the {it}",
        "please touch the {it}",
        "reach out to the {it}",
        "get to the {it}",
        "put the gripper on the {it}",
        "place the hand on the {it}",
    ),
    held_out=(
        "please reach the {it}",
        "move the arm to the {it}",
        "take the gripper to the {it}",
        "reach down and touch the {it}",
        "head for the {it}",
        "the hand should go to the {it}",
    ),
)


class ReachEnv(TabletopEnv):
    """Success: the pinch point within 3 cm of the point 2 cm above the target's top for 10 steps in a row.

    Settling on another object ends the episode as failed.
    """

    task: ClassVar[str] = "reach"
    action_names: ClassVar[tuple[str, ...]] = ("dx", "dy", "dz")
    horizon: int = HORIZON

    def sample_layout(self, combinations: Combinations, referent: Referent | None) -> Layout:
        rng = self.np_random
        objects = crossed_objects(rng, combinations, referent.pair if referent else None)
        paths = None
        while paths is None:
            samplers: list[PathSampler] = [_sampler] * len(objects)
            paths = place_apart(rng, samplers, [o.footprint for o in objects])
        referents: list[Referent | None] = [Referent(colour=o.colour, shape=o.shape) for o in objects]
        return Layout(objects=objects, paths=paths, target=0, referents=referents)

    def start_position(self) -> np.ndarray:
        return random_start(self.np_random, *START_HEIGHT)

    def judge(self, index: int) -> bool:
        return self._settled() == index

    def is_over(self) -> bool:
        return self._settled() is not None

    def instruction_for(self, index: int, phrasing: Phrasing, rng: np.random.Generator) -> str:
        shown = self.layout.objects[index]
        return TEMPLATES.pick(phrasing, rng).format(it=name_object(shown.colour, shown.shape, rng))

    def expert_state(self) -> np.ndarray:
        """Proprioception, and from the hand to the point to reach, and to those over the other objects, as far as they
        are there, in tenths of a metre: (12 + 3 · 4,).
        """
        known = self.privileged()
        present, mine = known["present"], known["target"]
        far = (self._hover_points(known) - known["hand"]) * present[:, None]
        others = np.delete(far, mine, axis=0).ravel()
        return np.concatenate([self._arm.agent_pos(), 10 * far[mine], 10 * others]).astype(np.float32)

    def dense_reward(self) -> float:
        """Up to 1 near the point to reach; success pays what that would for the rest of the episode, and 3."""
        known = self.privileged()
        distance = float(np.linalg.norm(self._hover_points(known)[known["target"]] - known["hand"]))
        return near(distance, 0.1) + self.success * rest(1.0, self.horizon - self.step_count)

    @staticmethod
    def _hover_points(known: Mapping[str, Any]) -> np.ndarray:
        """Where the gripper is to be held for each object, (O, 3) metres."""
        points: np.ndarray = known["positions"].copy()
        points[:, 2] += known["half_heights"] + HOVER
        return points

    def _settled(self) -> int | None:
        """The first object at which the gripper was held."""
        metrics = self.metrics
        if metrics.settled_on is None and metrics.steps >= HOLD:
            last = slice(metrics.steps - HOLD, metrics.steps)
            distances = np.hypot(metrics.errors[last], metrics.heights[last] - HOVER)
            held = np.flatnonzero((distances < TOLERANCE).all(axis=0))
            if len(held):
                metrics.settled_on = int(held[0])
        return metrics.settled_on


def _sampler(rng: np.random.Generator) -> tuple[Curve, np.ndarray]:
    return partial(still, position=rng.uniform(*REGION)), np.zeros(1)


# The expert.

GAIN = 5.0  # 1/s
SAFE_HEIGHT = 0.07  # above the hover point while still to the side, metres
FUNNEL = (0.03, 0.09)  # horizontal distance at which the descent is complete, and at which it starts, metres


def law(now: Situation) -> np.ndarray:
    """The action (dx, dy, dz) in [-1, 1] towards each object, (..., O, 3): over it first, then down, in one smooth law.

    Phases: APPROACH (far to the side: stay high), DESCEND (above the target: go down to the hover point).
    """
    goal = now.positions.copy()
    goal[..., 2] += now.half_heights + HOVER
    aside = np.hypot(goal[..., 0] - now.hand[..., 0], goal[..., 1] - now.hand[..., 1])
    goal[..., 2] += SAFE_HEIGHT * np.clip((aside - FUNNEL[0]) / (FUNNEL[1] - FUNNEL[0]), 0.0, 1.0)
    return limited(GAIN * (goal - now.hand) / MAX_SPEED[:3])


def limited(action: np.ndarray) -> np.ndarray:
    """Scale actions (..., A) so that no component exceeds 1, keeping their directions."""
    return (action / np.maximum(1.0, np.abs(action).max(axis=-1, keepdims=True))).astype(np.float32)


EXPERT = PlanningExpert(law, ReachEnv.action_names)


def read(text: str) -> dict[str, Referent]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it names nothing that this task knows.
    """
    return {"referent": read_object(text)}
