"""`track_event`: wait at home for what the words say, act on the named object while it holds, and go home after it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np

from envs.tabletop.arm import MAX_SPEED, RAMP
from envs.tabletop.env import TabletopEnv
from envs.tabletop.episode import Layout
from envs.tabletop.events import EVENTS, read_event
from envs.tabletop.instructions import Phrasing, Referent, name_object
from envs.tabletop.motion import REGION, Curve, PathSampler, go_between, place_apart, sample_path, still
from envs.tabletop.objects import Combinations, crossed_objects
from envs.tabletop.plans import PlanningExpert
from envs.tabletop.scene import CONTROL_HZ, LAMP_PLACE, LAMP_RADIUS
from envs.tabletop.situation import Situation
from envs.tabletop.tasks.reach import HOLD, HOVER, limited
from envs.tabletop.tasks.reach import TOLERANCE as TOUCH_TOLERANCE
from envs.tabletop.tasks.reach import law as touch
from envs.tabletop.tasks.track import GAIN, HOVER_HEIGHT

HORIZON = 120  # control steps: 6 s
HOME = np.array([-0.18, 0.0, 0.20])  # where the gripper waits: no object is behind it for the front camera, metres
HOME_JITTER = 0.01  # of the start, each axis, metres
HOME_TOLERANCE = 0.06  # distance from HOME that counts as at home, metres
HOME_GAP = 0.12  # horizontal distance that all objects keep from HOME, metres
TOLERANCE = 0.04  # horizontal distance while following, metres
ARRIVAL = 28  # control steps from the event's start within which the gripper has to get there
RETURN = 26  # control steps from the event's end until it has to be home
REQUIRED_SHARE = 0.8  # of the judged steps, while following and when home again
SPEED = (0.06, 0.11)  # m/s
CURVES = ("circle", "ellipse", "line")
COARSE = 10  # simulation ticks between the points of a path that are kept away from home and lamp
NOTICE = 3  # control steps from the moment in which an object starts or stops until its pictures can tell

# When things happen, seconds. Drawn for every object, and for the lamp, apart from each other; spread widely, so that
# leaving at a time that is often right succeeds rarely.
START = (0.5, 2.3)  # "while": it starts to move
LASTING, END = 1.8, 4.3  # and moves for at least so long, and until then at most
STOP = (0.8, 3.7)  # "stop": it moves until then
GREEN = (0.8, 3.7)  # "lamp"
NEVER = (0, 0)
TIMINGS = ("still", "moving", "starting", "stopping")  # of an object that waits for the lamp: no matter
CHANGE = (0.6, 4.2)  # when such an object starts or stops


class TrackEventEnv(TabletopEnv):
    """Success: home until the event starts, then at the object in time, and home again where the words say so.

    Home is within 6 cm of HOME, until then in every step. "while" and "lamp": within 4 cm of the object horizontally
    not later than 1.4 s after the event's start, and in 80 % of the steps from there to its end. "stop": within 3 cm of
    the point 2 cm above its top, not later than that, for 10 steps in a row. "while": then home in 80 % of the steps
    from 1.3 s after its end.

    Every object has one kind of event and a time of its own; the lamp is there and turns green whoever is meant.
    """

    task: ClassVar[str] = "track_event"
    action_names: ClassVar[tuple[str, ...]] = ("dx", "dy", "dz")
    horizon: int = HORIZON

    def sample_layout(self, combinations: Combinations, referent: Referent | None) -> Layout:
        rng = self.np_random
        if referent and referent.event not in (None, *EVENTS):
            raise ValueError(f"{referent} must name one event of {', '.join(EVENTS)}")
        objects = crossed_objects(rng, combinations, referent.pair if referent else None)
        kinds = [list(EVENTS)[k] for k in rng.integers(len(EVENTS), size=len(objects))]
        if referent and referent.event:
            kinds[0] = referent.event
        lamp = _step(rng, GREEN)
        spans = [_moving(rng, kind) for kind in kinds]
        paths = None
        while paths is None:
            samplers = [_sampler(span, one.footprint) for span, one in zip(spans, objects, strict=True)]
            paths = place_apart(rng, samplers, [o.footprint for o in objects])
        return Layout(
            objects=objects,
            paths=paths,
            target=0,
            referents=[Referent(colour=o.colour, shape=o.shape, event=k) for o, k in zip(objects, kinds, strict=True)],
            events=np.array([_event(kind, span, lamp) for kind, span in zip(kinds, spans, strict=True)]),
            lamp=lamp,
        )

    def start_position(self) -> np.ndarray:
        return HOME + self.np_random.uniform(-HOME_JITTER, HOME_JITTER, 3)

    def judge(self, index: int) -> bool:
        return not self.fault(index)

    def fault(self, index: int) -> str:
        start, end = self.events[index]
        words = self.layout.referents[index]
        assert words is not None
        at_home: np.ndarray = np.linalg.norm(self.metrics.hands - HOME, axis=1) <= HOME_TOLERANCE
        if not at_home[: start + 1].all():
            return "left home before the event"
        errors, heights = self.metrics.errors[start : end + 1, index], self.metrics.heights[start : end + 1, index]
        if words.event == "stop":
            held = np.hypot(errors, heights - HOVER) < TOUCH_TOLERANCE
            begun = np.flatnonzero(np.lib.stride_tricks.sliding_window_view(held, HOLD).all(axis=1))
            return "" if len(begun) and begun[0] <= ARRIVAL else "did not touch the target in time"
        near = errors <= TOLERANCE
        if not near[: ARRIVAL + 1].any():
            return "not at the target in time"
        if not _mostly(near[ARRIVAL:]):
            return "did not stay at the target"
        if words.event == "while" and not _mostly(at_home[end + RETURN :]):
            return "not home in time after the event"
        return ""

    def judged_steps(self, index: int) -> slice:
        """Those of the event, after the time to get there."""
        start, end = self.events[index]
        return slice(min(start + ARRIVAL, end), end + 1)

    def instruction_for(self, index: int, phrasing: Phrasing, rng: np.random.Generator) -> str:
        words = self.layout.referents[index]
        assert words is not None
        assert words.event is not None
        colour, shape = words.pair
        return EVENTS[words.event].pick(phrasing, rng).format(it=name_object(colour, shape, rng))


def _mostly(held: np.ndarray) -> bool:
    return bool(np.count_nonzero(held) >= REQUIRED_SHARE * len(held))


def _step(rng: np.random.Generator, seconds: tuple[float, float]) -> int:
    """A random control step between two times."""
    return int(rng.integers(round(seconds[0] * CONTROL_HZ), round(seconds[1] * CONTROL_HZ), endpoint=True))


def _moving(rng: np.random.Generator, kind: str) -> tuple[int, int]:
    """First and one-past-last control step in which an object with this kind of event moves; NEVER if none."""
    last = HORIZON + 1
    if kind == "while":
        start = _step(rng, START)
        return start, _step(rng, (start / CONTROL_HZ + LASTING, END))
    if kind == "stop":
        return 0, _step(rng, STOP)
    timing = TIMINGS[rng.integers(len(TIMINGS))]
    change = _step(rng, CHANGE)
    return {"still": NEVER, "moving": (0, last), "starting": (change, last), "stopping": (0, change)}[timing]


def _event(kind: str, moving: tuple[int, int], lamp: int) -> tuple[int, int]:
    """First and one-past-last control step of the event, as far as anybody who looks on can know."""
    if kind == "while":
        return moving[0] + NOTICE, moving[1] + NOTICE
    return (moving[1] + NOTICE if kind == "stop" else lamp), HORIZON


def _sampler(moving: tuple[int, int], footprint: float) -> PathSampler:
    """A sampler of paths that run between two control steps and keep away from home and lamp."""
    times = np.arange(HORIZON * RAMP + RAMP + 1) / (CONTROL_HZ * RAMP)
    share = go_between(times, speed=1.0, start=moving[0] / CONTROL_HZ, end=moving[1] / CONTROL_HZ)
    keep_out = ((HOME[:2], HOME_GAP), (np.array(LAMP_PLACE), LAMP_RADIUS + footprint))

    def sample(rng: np.random.Generator) -> tuple[Curve, np.ndarray]:
        while True:
            speed = rng.uniform(*SPEED)
            travelled = speed * share
            curve: Curve = partial(still, position=rng.uniform(*REGION))
            if moving != NEVER:
                curve, _ = sample_path(CURVES[rng.integers(len(CURVES))], rng, times, speed)
            path = curve(travelled[::COARSE])
            if all(np.linalg.norm(path - place, axis=1).min() > gap for place, gap in keep_out):
                return curve, travelled

    return sample


def law(now: Situation) -> np.ndarray:
    """The action (dx, dy, dz) in [-1, 1] that each object's instruction asks for, (..., O, 3).

    Phases: WAIT and RETURN (no event: go home and stay), FOLLOW (hover over the object and move with it), TOUCH (down
    onto it, for what has come to rest).
    """
    goal, pace = now.positions.copy(), np.zeros_like(now.positions)
    goal[..., 2] = HOVER_HEIGHT
    goal[..., :2] += now.velocities / CONTROL_HZ
    pace[..., :2] = now.velocities
    follow = limited((pace + GAIN * (goal - now.hand)) / MAX_SPEED[:3])
    home = limited(GAIN * (HOME - now.hand) / MAX_SPEED[:3])
    touched = np.array([kind == "stop" for kind in now.kinds])
    there = np.where(touched[:, None], touch(now), follow)
    action: np.ndarray = np.where(np.expand_dims(now.active, -1), there, home)
    return action


EXPERT = PlanningExpert(law, TrackEventEnv.action_names)


def read(text: str) -> dict[str, Referent]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it names nothing that this task knows.
    """
    return {"referent": read_event(text)}
