"""`track`: keep the gripper over the named moving object among four moving ones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from envs.tabletop.arm import MAX_SPEED, RAMP
from envs.tabletop.env import NEAR, TabletopEnv, random_start
from envs.tabletop.episode import EpisodeMetrics, Layout
from envs.tabletop.instructions import Phrasing, Referent, Templates, name_object, read_object
from envs.tabletop.motion import PATH_KINDS, PathSampler, place_apart, sample_path
from envs.tabletop.objects import Combinations, crossed_objects
from envs.tabletop.plans import PlanningExpert
from envs.tabletop.scene import CONTROL_HZ
from envs.tabletop.situation import Situation
from envs.tabletop.tasks.reach import limited

HORIZON = 110  # control steps: 5.5 s
HOVER_HEIGHT = 0.15  # height of the pinch point above the table, metres
TOLERANCE = 0.04  # horizontal distance, metres
JUDGED_SHARE = 0.6  # the last part of the episode counts
REQUIRED_SHARE = 0.8  # of the judged steps must be within the tolerance
SPEED = (0.03, 0.11)  # m/s

TEMPLATES = Templates(
    train=(
        "track the {it}",
        "follow the {it}",
        "stay over the {it}",
        "keep the gripper over the {it}",
        "keep the hand above the {it}",
        "move with the {it}",
        "go after the {it}",
        "chase the {it}",
        "please track the {it}",
        "please follow the {it}",
        "hover over the {it}",
        "hold the gripper above the {it}",
        "keep following the {it}",
        "stay with the {it}",
    ),
    held_out=(
        "keep tracking the {it}",
        "please stay above the {it}",
        "let the gripper follow the {it}",
        "find and follow the {it}",
        "keep up with the {it}",
        "the hand should stay over the {it}",
    ),
)


def tracked(metrics: EpisodeMetrics, index: int) -> bool:
    """Whether object `index` was within TOLERANCE in REQUIRED_SHARE of the judged steps."""
    judged = metrics.errors[-round(HORIZON * JUDGED_SHARE) :, index]
    return bool(np.count_nonzero(judged <= TOLERANCE) >= REQUIRED_SHARE * len(judged))


def path_times() -> np.ndarray:
    """Seconds of every tick of an episode's paths."""
    return np.arange(HORIZON * RAMP + RAMP + 1) / (CONTROL_HZ * RAMP)


class TrackEnv(TabletopEnv):
    """Success: horizontally within 4 cm of the target in at least 80 % of the last 60 % of the episode."""

    task: ClassVar[str] = "track"
    action_names: ClassVar[tuple[str, ...]] = ("dx", "dy")
    horizon: int = HORIZON

    def sample_layout(self, combinations: Combinations, referent: Referent | None) -> Layout:
        rng = self.np_random
        objects = crossed_objects(rng, combinations, referent.pair if referent else None)
        times = path_times()
        paths = None
        while paths is None:
            samplers = [_sampler(rng, times) for _ in objects]
            paths = place_apart(rng, samplers, [o.footprint for o in objects])
        referents: list[Referent | None] = [Referent(colour=o.colour, shape=o.shape) for o in objects]
        return Layout(objects=objects, paths=paths, target=0, referents=referents)

    def start_position(self) -> np.ndarray:
        return random_start(self.np_random, HOVER_HEIGHT, HOVER_HEIGHT)

    def judge(self, index: int) -> bool:
        return tracked(self.metrics, index)

    def dense_reward(self) -> float:
        """1 above the target, less with the horizontal distance, 0 from 10 cm on."""
        return max(0.0, 1 - float(self.metrics.errors[self.step_count, self.layout.target]) / NEAR)

    def instruction_for(self, index: int, phrasing: Phrasing, rng: np.random.Generator) -> str:
        shown = self.layout.objects[index]
        return TEMPLATES.pick(phrasing, rng).format(it=name_object(shown.colour, shown.shape, rng))


def _sampler(rng: np.random.Generator, times: np.ndarray) -> PathSampler:
    kind = PATH_KINDS[rng.integers(len(PATH_KINDS))]
    speed = rng.uniform(*SPEED)
    return lambda r: sample_path(kind, r, times, speed)


# The expert.

GAIN = 4.0  # 1/s


def law(now: Situation) -> np.ndarray:
    """The action (dx, dy) in [-1, 1] towards each object, (..., O, 2): move with it and close the gap to it."""
    ahead = now.positions[..., :2] + now.velocities / CONTROL_HZ
    return limited((now.velocities + GAIN * (ahead - now.hand[..., :2])) / MAX_SPEED[:2])


EXPERT = PlanningExpert(law, TrackEnv.action_names)


def read(text: str) -> dict[str, Referent]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it names nothing that this task knows.
    """
    return {"referent": read_object(text)}
