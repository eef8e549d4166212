"""`place`: grasp the named thing, and put it into the named bowl or lift it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contact.base import FALLEN, MOVED, RESTING, TRIES, aim_of, limited, nearest
from envs.contact.grasp import GAIN, ROOM, GraspTask, bring, grasp
from envs.contact.scene import BOWL_HEIGHT, BOWL_RADIUS, Part, ball, bowl, cube
from envs.rewards import near, rest
from envs.tabletop.arm import MAX_SPEED, WORKSPACE
from envs.tabletop.instructions import Templates, near_miss
from envs.tabletop.objects import COLOURS, COMBINATIONS, HELD_OUT_COMBINATIONS, SHAPE_WORDS
from envs.words import words_of

HORIZON = 240  # control steps: 12 s
HALF = {"cube": 0.018, "ball": 0.02}  # of their sides and diameters, metres
SHAPES = ("cube", "cube", "ball", "ball")  # by thing
THINGS, BOWLS = len(SHAPES), 2
REST = 5  # control steps in a row for which the thing lies in the bowl, let go and at rest
LIFTED, HOLD = 0.10, 10  # metres above where it stood, and control steps in a row for which it is held there

PUT = Templates(
    train=(
        "put the {it} into the {bowl}",
        "put the {it} in the {bowl}",
        "place the {it} into the {bowl}",
        "drop the {it} into the {bowl}",
        "bring the {it} to the {bowl}",
        "take the {it} and put it into the {bowl}",
        "please put the {it} in the {bowl}",
        "the {it} belongs in the {bowl}",
    ),
    held_out=(
        "please place the {it} in the {bowl}",
        "take the {it} and drop it into the {bowl}",
        "please bring the {it} to the {bowl}",
    ),
)
LIFT = Templates(
    train=(
        "lift the {it}",
        "lift the {it} up",
        "pick up the {it}",
        "pick the {it} up",
        "raise the {it}",
        "please lift the {it}",
        "take the {it} and lift it up",
        "hold the {it} up",
    ),
    held_out=("please pick up the {it}", "take the {it} and hold it up", "raise the {it} up"),
)
BOWL_WORDS = ("bowl", "dish")

REGION = np.array([[-0.16, -0.18], [0.16, 0.18]])  # where things are put, x and y in metres
APART = 0.085  # middles of things, metres
FROM_BOWLS = 0.115  # of things from the middles of bowls, metres
BOWLS_APART = 0.14  # metres
MOST_YAW = np.deg2rad(30)


class PlaceTask(GraspTask):
    """Two cubes and two balls in two colours, two bowls. Told to put, success: the named thing lies in the named bowl,
    let go and at rest for a quarter of a second. Told to lift: held by both fingers 10 cm above where it stood, for
    half a second. Things 0 and 1 are the cubes, 2 and 3 the balls, 4 and 5 the bowls, of which 4 is meant.

    Reward, each step: up to 0.3 with the hand near the thing, 0.5 while both fingers hold it in the air, and up to 1
    with it near the bowl, or near the height to which it is to be lifted; success pays what those would for the rest of
    the episode, and 3. See `reward_terms`.

    `reset(options=…)` takes `combinations`, the pairs of colour and shape ("train", "held_out" or "all"); `verb`,
    "put" or "lift"; and `colour`, `shape` and `bowl` of what is meant.
    """

    floor: ClassVar[float] = 0.012
    bodies: ClassVar[Sequence[Part]] = (
        *(cube(f"cube{i}", HALF["cube"]) for i in range(2)),
        *(ball(f"ball{i}", HALF["ball"]) for i in range(2)),
    )
    fixtures: ClassVar[Sequence[Part]] = tuple(bowl(f"bowl{i}") for i in range(BOWLS))
    horizon: int = HORIZON
    own_options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "combinations": COMBINATIONS,
        "verb": ("put", "lift"),
        "colour": tuple(COLOURS),
        "shape": ("cube", "ball"),
        "bowl": tuple(COLOURS),
    }

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        rng = self.rng
        colour, shape, other = _pair(rng, options)
        names = [name for name in COLOURS if name != options.get("bowl")]
        bowls = rng.permutation(names)[:BOWLS].tolist()
        if "bowl" in options:
            bowls[0] = options["bowl"]
        first, second = (colour, other) if rng.random() < 0.5 else (other, colour)
        colours = (first, second, first, second, *bowls)
        target = (0 if shape == "cube" else 2) + (first, second).index(colour)
        self.verb = options.get("verb") or ("put" if rng.random() < 2 / 3 else "lift")
        self.arrange(colours, _places(rng), rng.uniform(-MOST_YAW, MOST_YAW, THINGS))
        start = rng.uniform((*WORKSPACE[0, :2], 0.13), (*WORKSPACE[1, :2], 0.25))
        self.table.arm.reset(start, opening=float(rng.uniform(0.01, 0.035)))
        self.target = target
        # Into which bowl each thing is to go if it is meant.
        self._bowl_of = rng.integers(BOWLS, size=THINGS)
        self._bowl_of[target] = 0
        self.aims = np.full((len(self.things), 2), -1, np.int64)
        # Not by words that are kept for the unseen combination: that would be two things at once.
        named = [i for i in range(THINGS) if i == target or (colours[i], SHAPES[i]) not in HELD_OUT_COMBINATIONS]
        for i in (*named, *([THINGS + 1] if self.verb == "put" else [])):
            thing, into = self._meant(i)
            self.aims[i] = thing, THINGS + into if self.verb == "put" else thing
        # Control steps in a row, now and at most: at rest in each bowl, and held in the air.
        self._placed, self._stayed = (np.zeros((THINGS, BOWLS), np.int64) for _ in range(2))
        self._held, self._longest = (np.zeros(THINGS, np.int64) for _ in range(2))
        return self.words(target, phrasing, rng), target

    def note(self) -> None:
        super().note()
        props = self.table.props
        things, bowls, touching = props.bodies, props.fixtures, props.touching()
        inside = np.linalg.norm(things[:, None, :2] - bowls[None, :, :2], axis=-1) < BOWL_RADIUS
        inside &= (things[:, 2] < BOWL_HEIGHT + HALF["ball"])[:, None] & (things[:, 2] > 0)[:, None]
        free = (props.speeds < RESTING) & ~touching.any(axis=1)
        self._placed = np.where(inside & free[:, None], self._placed + 1, 0)
        self._stayed = np.maximum(self._stayed, self._placed)
        both = touching.all(axis=1)
        self._held = np.where(both & (things[:, 2] - self.start[:, 2] > LIFTED), self._held + 1, 0)
        self._longest = np.maximum(self._longest, self._held)

    def success(self) -> bool:
        return self.judge(self.target)

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if thing `index` was meant: with a bowl of its own, or a bowl, for the
        named thing.
        """
        thing, into = self._meant(index)
        if self.verb == "lift":
            return bool(self._longest[thing] >= HOLD)
        return bool(self._stayed[thing, into] >= REST)

    def counterfactual(self, phrasing: Any, rng: np.random.Generator) -> tuple[str, int]:
        """Words for another thing or, where it is to be put into one, for the other bowl."""
        others = [int(i) for i in np.flatnonzero(self.aims[:, 0] >= 0) if i != self.target]
        index = others[rng.integers(len(others))]
        return self.words(index, phrasing, rng), index

    def knowledge(self) -> Mapping[str, Any]:
        return {**super().knowledge(), "verb": self.verb}

    def reward_terms(self) -> dict[str, float]:
        """The parts of a step's reward."""
        props = self.table.props
        thing, into = props.bodies[self.target], props.fixtures[0]
        missing = LIFTED - float(thing[2] - self.start[self.target, 2])
        lift = self.verb == "lift"
        left = max(missing, 0.0) if lift else float(np.linalg.norm(thing[:2] - into[:2]))
        return {
            **self.grasp_terms(),
            "progress": near(left, 0.1 if lift else 0.2),
            "success": self.success() * rest(1.8, self.horizon - self.step_count),
        }

    @property
    def target_name(self) -> str:
        name = f"{self.colours[self.target]} {SHAPES[self.target]}"
        return f"{name} (into the {self.colours[THINGS]} bowl)" if self.verb == "put" else f"{name} (up)"

    def diagnosis(self) -> str:
        """Why the episode failed, in a few words."""
        far, mine = self.moved(), self.target
        others = np.delete(np.arange(THINGS), mine)
        if self.verb == "put" and self._stayed[mine, 1] >= REST:
            return "wrong bowl"
        if self.gripped[others].any() and not self.gripped[mine]:
            return "wrong thing"
        if self.table.props.bodies[mine, 2] < FALLEN:
            return "fell off the table"
        if not self.touched[mine]:
            return "never touched"
        if not self.gripped[mine]:
            return "pushed, not grasped" if far[mine] > MOVED else "not grasped"
        return "grasped too late" if self.table.props.touching()[mine].all() else "dropped"

    def _meant(self, index: int) -> tuple[int, int]:
        """Thing and bowl."""
        return (index, int(self._bowl_of[index])) if index < THINGS else (self.target, index - THINGS)

    def words(self, index: int, phrasing: Any, rng: np.random.Generator) -> str:
        meant = self.meaning(index)
        words = SHAPE_WORDS[meant["shape"]]
        it = f"{meant['colour']} {words[rng.integers(len(words))]}"
        dish = f"{meant.get('bowl')} {BOWL_WORDS[rng.integers(len(BOWL_WORDS))]}"
        templates = PUT if self.verb == "put" else LIFT
        return templates.pick(phrasing, rng).format(it=it, bowl=dish)

    def meaning(self, index: int) -> dict[str, str]:
        thing, into = self._meant(index)
        bowl = {"bowl": str(self.colours[THINGS + into])} if self.verb == "put" else {}
        return {"verb": self.verb, "colour": str(self.colours[thing]), "shape": SHAPES[thing], **bowl}


def _pair(rng: np.random.Generator, options: Mapping[str, Any]) -> tuple[str, str, str]:
    """Colour and shape of what is meant, and the other colour of the scene."""
    combinations = options.get("combinations", "train")
    found = []
    for colour, shape, other in product(COLOURS, ("cube", "ball"), COLOURS):
        if colour == other or options.get("colour") not in (None, colour) or options.get("shape") not in (None, shape):
            continue
        fits = ((colour, shape) in HELD_OUT_COMBINATIONS) == (combinations == "held_out")
        if fits or combinations == "all" or "colour" in options:
            found.append((colour, shape, other))
    return found[rng.integers(len(found))]


def _places(rng: np.random.Generator) -> np.ndarray:
    """Where things and bowls are, `(THINGS + BOWLS, 2)` metres, with room for the fingers around each."""
    while True:
        bowls: list[np.ndarray] = []
        things: list[np.ndarray] = []
        for _ in range(TRIES):  # one after the other, until all have found a place
            spot = rng.uniform(*REGION)
            if len(bowls) < BOWLS:
                if nearest(spot, bowls) > BOWLS_APART:
                    bowls.append(spot)
            elif nearest(spot, bowls) > FROM_BOWLS and nearest(spot, things) > APART:
                things.append(spot)
                if len(things) == THINGS:
                    return np.array([*things, *bowls])


def read(text: str) -> dict[str, str]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it does not name one thing by colour and shape, and one bowl by its colour unless it says to lift.
    """
    tokens = words_of(text).split()
    shape_of = {word: shape for shape in ("cube", "ball") for word in SHAPE_WORDS[shape]}
    after = [(colour, noun) for colour, noun in pairwise(tokens) if colour in COLOURS]
    things = {(colour, shape_of[noun]) for colour, noun in after if noun in shape_of}
    bowls = {colour for colour, noun in after if noun in BOWL_WORDS}
    said = " ".join(tokens)
    lifts = not bowls and bool(re.search(r"\b(?:lift|raise)\b|\bpick\b.*\bup\b|\bhold the \w+ \w+ up\b", said))
    named = sum(token in COLOURS for token in tokens)
    taken = {"out", "from", "away", "off"} & set(tokens)
    if len(things) != 1 or len(bowls) != (not lifts) or named != 1 + len(bowls) or taken:
        hint = near_miss(tokens, [*COLOURS, *shape_of, *BOWL_WORDS])
        raise ValueError(
            f"instruction {text!r} must name one cube or ball by its colour and say where to{hint}, as in 'put the "
            f"blue ball into the yellow bowl' or 'lift the red cube'; colours are {', '.join(COLOURS)}"
        )
    colour, shape = things.pop()
    options = {"verb": "lift" if lifts else "put", "colour": colour, "shape": shape}
    return {**options, **({"bowl": bowls.pop()} if bowls else {})}


# The expert: phases that the state alone decides.

CARRIED = 0.10  # height at which things are carried, metres
RELEASED = 0.05  # height of the thing at which it is let go over the bowl, metres
CENTRED = 0.012  # how far from the bowl's middle it may be let go, metres


def expert(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> np.ndarray:
    """What to do now, (5,) in [-1, 1]: grasp the thing, up, and over the bowl, down, open."""
    known = info["privileged"]
    (index, goal), hand = aim_of(known), known["hand"]
    thing, shape = known["bodies"][index], SHAPES[index]
    to_bowl = known["fixtures"][max(goal - THINGS, 0)] - thing
    left, put = float(np.hypot(*to_bowl[:2])), known["verb"] == "put"
    velocity, gripper = np.zeros(3), -1.0
    if put and left < 0.8 * BOWL_RADIUS and thing[2] < RELEASED + 0.005:  # let go, then up
        gripper = 1.0
        velocity[2] = 0.15 if known["opening"] > HALF[shape] + ROOM else 0.0
    elif not known["gripped"][index]:
        return grasp(known, index, HALF[shape], faces=shape == "cube")
    elif not put:
        velocity[2] = GAIN * (LIFTED + 0.04 - hand[2]) + 0.02
    else:
        return bring(to_bowl[:2], thing[2], carried=CARRIED, lowered=RELEASED - 0.01, funnel=(CENTRED, CENTRED))
    return np.array([*limited(velocity / MAX_SPEED[:3]), 0.0, gripper], np.float32)
