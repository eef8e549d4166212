"""`track_motion`: two or three identical objects, told apart by how they move and by nothing else."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np

from envs.tabletop.episode import Layout
from envs.tabletop.instructions import Phrasing, Referent, near_miss
from envs.tabletop.motion import Curve, PathSampler, bounce, ellipse, place_interchangeably, still, stop_and_go
from envs.tabletop.objects import COLOURS, HELD_OUT_COMBINATIONS, SHAPE_WORDS, SHAPES, Combinations, sample_object
from envs.tabletop.tasks.track import TEMPLATES, TrackEnv, path_times
from envs.words import UNSTOPPING, words_of

SPEED = (0.07, 0.12)  # m/s, where the words are not about speed
SPEEDS = {"fastest": (0.11, 0.14), "medium": (0.05, 0.065), "slowest": (0.02, 0.03)}  # m/s, where they are
RADIUS = (0.035, 0.065)  # metres
HALF_LENGTH = (0.05, 0.10)  # metres
GO, STOP = (0.5, 0.8), (0.4, 0.6)  # seconds
THREE_OBJECTS = 0.5  # probability of a third object

# What the words say, by motion.
MOTIONS: dict[str, tuple[str, ...]] = {
    "clockwise": (
        "{noun} moving clockwise",
        "{noun} going clockwise",
        "clockwise {noun}",
        "{noun} that turns clockwise",
    ),
    "counterclockwise": (
        "{noun} moving counterclockwise",
        "{noun} going counterclockwise",
        "counterclockwise {noun}",
        "{noun} that turns counterclockwise",
    ),
    "fastest": ("fastest {noun}", "{noun} moving fastest", "{noun} that is fastest", "quickest {noun}"),
    "slowest": ("slowest {noun}", "{noun} moving slowest", "{noun} that is slowest"),
    "left_right": ("{noun} moving left and right", "{noun} going left and right", "{noun} moving sideways"),
    "towards_away": ("{noun} moving towards and away", "{noun} going towards and away", "{noun} moving back and forth"),
    "stopping": ("{noun} that keeps stopping", "{noun} that stops and goes", "stopping {noun}"),
    "steady": ("{noun} that never stops", "{noun} that moves without a stop", "steady {noun}"),
}
# A scene holds the two named motions of one group and, sometimes, the third, which has no words of its own.
GROUPS: tuple[tuple[str, str, str], ...] = (
    ("clockwise", "counterclockwise", "straight"),
    ("fastest", "slowest", "medium"),
    ("left_right", "towards_away", "round"),
    ("stopping", "steady", "still"),
)
NOUNS = ("object", "thing", "one")

# For reading a user's own words, in which every way to say that something never stops is "never stops"; the first match
# counts.
STEMS: dict[str, tuple[str, ...]] = {
    "counterclockwise": ("counterclockwise", "counter clockwise", "anticlockwise", "anti clockwise"),
    "clockwise": ("clockwise",),
    "fastest": ("fastest", "quickest"),
    "slowest": ("slowest",),
    "left_right": ("left", "sideways"),
    "towards_away": ("towards", "back and forth"),
    "steady": ("steady", "never stops"),
    "stopping": ("stop",),
}

_AXES = {"left_right": np.array([0.0, 1.0]), "towards_away": np.array([1.0, 0.0])}  # the robot's x points at the camera
_ROUND = ("clockwise", "counterclockwise", "round")
_STRAIGHT = ("left_right", "towards_away", "straight")


class TrackMotionEnv(TrackEnv):
    """Success as in `track`. Objects share colour, shape, size and yaw; where they start carries no information."""

    task: ClassVar[str] = "track_motion"

    def sample_layout(self, combinations: Combinations, referent: Referent | None) -> Layout:
        rng = self.np_random
        named = referent.motion if referent else None
        if referent and named not in MOTIONS:
            raise ValueError(f"{referent} must name one motion of {', '.join(MOTIONS)}")
        groups = [g for g in GROUPS if named is None or named in g[:2]]
        group = groups[rng.integers(len(groups))]
        pairs = [
            (c, s)
            for c in COLOURS
            for s in SHAPES
            if combinations == "all" or ((c, s) in HELD_OUT_COMBINATIONS) == (combinations == "held_out")
        ]
        if referent and (referent.colour or referent.shape):  # what a user asks for may be any combination
            named_pairs = [(c, s) for c in COLOURS for s in SHAPES]
            pairs = [(c, s) for c, s in named_pairs if referent.colour in (None, c) and referent.shape in (None, s)]
        one = sample_object(rng, *pairs[rng.integers(len(pairs))])
        times = path_times()
        count = 3 if rng.uniform() < THREE_OBJECTS else 2
        shared = "round" if rng.uniform() < 0.5 else "straight"
        samplers = [_sampler(motion, shared, times) for motion in group[:count]]
        paths = None
        while paths is None:
            paths = place_interchangeably(rng, samplers, one.footprint)
        target = group.index(named) if named else int(rng.integers(2))
        referents = [Referent(motion=motion) if motion in MOTIONS else None for motion in group[:count]]
        return Layout(objects=[one] * count, paths=paths, target=target, referents=referents)

    def instruction_for(self, index: int, phrasing: Phrasing, rng: np.random.Generator) -> str:
        words = self.layout.referents[index]
        assert words is not None
        assert words.motion is not None
        nouns = (*SHAPE_WORDS[self.layout.objects[index].shape], *NOUNS)
        ways = MOTIONS[words.motion]
        it = ways[rng.integers(len(ways))].format(noun=nouns[rng.integers(len(nouns))])
        return TEMPLATES.pick(phrasing, rng).format(it=it)


def read_motion(text: str) -> Referent:
    """The motion that a free text names, with the colour and the shape of the things if it names one of each.

    Raises:
        ValueError: no motion is recognised, or the text cannot be an instruction (see `words_of`).
    """
    words = UNSTOPPING.sub("never stops", words_of(text))
    tokens = words.split()
    colours = {token for token in tokens if token in COLOURS}
    shapes = {shape for shape, names in SHAPE_WORDS.items() if set(names) & set(tokens)}
    for motion, stems in STEMS.items():
        if any(stem in words for stem in stems):
            return Referent(
                colour=colours.pop() if len(colours) == 1 else None,
                shape=shapes.pop() if len(shapes) == 1 else None,
                motion=motion,
            )
    hint = near_miss(tokens, " ".join(stem for stems in STEMS.values() for stem in stems).split())
    choices = ", ".join(stems[0] for stems in STEMS.values())
    raise ValueError(f"instruction {text!r} names no known motion{hint}; say one of: {choices}")


def read(text: str) -> dict[str, Referent]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it names no motion that this task knows.
    """
    return {"referent": read_motion(text)}


def _sampler(motion: str, shared: str, times: np.ndarray) -> PathSampler:
    """A sampler of curves around the origin that are moved along in this way.

    `shared` decides round or straight where the motion leaves it open.
    """
    is_round = motion in _ROUND or (motion not in _STRAIGHT and shared == "round")
    centre = np.zeros(2)

    def sample(rng: np.random.Generator) -> tuple[Curve, np.ndarray]:
        if motion == "still":
            return partial(still, position=centre), times
        speed = rng.uniform(*SPEEDS.get(motion, SPEED))
        travelled = speed * times
        if motion == "stopping":
            go, stop = rng.uniform(*GO), rng.uniform(*STOP)
            travelled = stop_and_go(times, speed=speed, go=go, stop=stop, phase=rng.uniform())
        if is_round:
            radius = rng.uniform(*RADIUS)
            turn = {"clockwise": -1, "counterclockwise": 1}.get(motion, 2 * int(rng.integers(2)) - 1)
            phase = rng.uniform(0, 2 * np.pi)
            return partial(ellipse, centre=centre, radii=(radius, radius), phase=phase, turn=turn), travelled
        angle = rng.uniform(0, 2 * np.pi)
        half = rng.uniform(*HALF_LENGTH) * _AXES.get(motion, np.array([np.cos(angle), np.sin(angle)]))
        return partial(bounce, centre=centre, half=half, phase=rng.uniform()), travelled

    return sample
