"""`stack`: put the named cube on top of another named one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contact.base import FALLEN, MOVED, RESTING, TRIES, aim_of, nearest
from envs.contact.grasp import ROOM, GraspTask, bring, grasp
from envs.contact.scene import Part, cube
from envs.rewards import near, rest
from envs.tabletop.arm import WORKSPACE
from envs.tabletop.instructions import Templates, near_miss
from envs.tabletop.objects import COLOURS, COMBINATIONS
from envs.words import words_of

HORIZON = 240  # control steps: 12 s
CUBES = 4  # at most; three at least
HALF = 0.018  # of their sides, metres
REST = 5  # control steps in a row for which the cube lies on the other, let go and at rest
LEVEL = 0.004  # metres by which the cube's middle may be higher or lower than on the other one

# Never together in training, as what is meant and what it is to be put on.
HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {("blue", "red"), ("yellow", "green"), ("orange", "purple"), ("red", "yellow")}
)
IT_WORDS, BASE_WORDS = ("cube", "block"), ("one", "cube", "block")

TEMPLATES = Templates(
    train=(
        "put the {it} on the {base}",
        "put the {it} onto the {base}",
        "put the {it} on top of the {base}",
        "stack the {it} on the {base}",
        "stack the {it} on top of the {base}",
        "set the {it} down on the {base}",
        "please stack the {it} onto the {base}",
        "take the {it} and put it on the {base}",
        "the {it} belongs on top of the {base}",
    ),
    held_out=(
        "please put the {it} on top of the {base}",
        "take the {it} and stack it on the {base}",
        "set the {it} on top of the {base}",
    ),
)

REGION = np.array([[-0.16, -0.18], [0.16, 0.18]])  # where cubes are put, x and y in metres
APART = 0.085  # middles of cubes, metres
MOST_YAW = np.deg2rad(30)


class StackTask(GraspTask):
    """Three or four cubes in different colours. Success: the named one lies on the other named one, let go and at rest
    for a quarter of a second. Cube 0 is meant, and is to be put on cube 1.

    Reward, each step: up to 0.3 with the hand near the cube, 0.5 while both fingers hold it in the air, and up to 1
    with it near its place on the other one; success pays what those would for the rest of the episode, and 3. See
    `reward_terms`.

    `reset(options=…)` takes `combinations`, the pairs of colours ("train", "held_out" or "all"), or `cube` and `base`,
    the colours of what is meant and of what it is put on; with one of these, any pair may come.
    """

    floor: ClassVar[float] = 0.012
    bodies: ClassVar[Sequence[Part]] = tuple(cube(f"cube{i}", HALF) for i in range(CUBES))
    fixtures: ClassVar[Sequence[Part]] = ()
    horizon: int = HORIZON
    own_options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "combinations": COMBINATIONS,
        "cube": tuple(COLOURS),
        "base": tuple(COLOURS),
    }

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        rng = self.rng
        first = _pair(rng, options)
        others = rng.permutation([name for name in COLOURS if name not in first]).tolist()
        count = int(rng.integers(CUBES - 1, CUBES + 1))
        colours = [*first, *others[: count - 2], *[None] * (CUBES - count)]
        places = np.zeros((CUBES, 2))
        places[:count] = _places(rng, count)
        self.arrange(colours, places, rng.uniform(-MOST_YAW, MOST_YAW, CUBES))
        start = rng.uniform((*WORKSPACE[0, :2], 0.13), (*WORKSPACE[1, :2], 0.25))
        self.table.arm.reset(start, opening=float(rng.uniform(0.01, 0.035)))
        # On which other cube each is to be put if it is meant: not in words that are kept for the unseen combination.
        self.aims = np.full((CUBES, 2), -1, np.int64)
        self.aims[0] = 0, 1
        for i in range(1, count):
            bases = [j for j in range(count) if j != i and (colours[i], colours[j]) not in HELD_OUT_PAIRS]
            self.aims[i] = i, bases[rng.integers(len(bases))]
        # Control steps in a row, now and at most, for which each lies at rest on each.
        self._placed, self._stayed = (np.zeros((CUBES, CUBES), np.int64) for _ in range(2))
        return self.words(0, phrasing, rng), 0

    def note(self) -> None:
        super().note()
        props = self.table.props
        free = (props.speeds < RESTING) & ~props.touching().any(axis=1)
        self._placed = np.where(_on(props.bodies) & free[:, None], self._placed + 1, 0)
        self._stayed = np.maximum(self._stayed, self._placed)

    def success(self) -> bool:
        return self.judge(0)

    def is_over(self) -> bool:
        return super().is_over() or bool(self.table.props.bodies[1, 2] < FALLEN)  # nothing can be put on it

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if cube `index` was meant, to be put on a cube of its own."""
        body, base = self.aims[index]
        return bool(self._stayed[body, base] >= REST)

    def counterfactual(self, phrasing: Any, rng: np.random.Generator) -> tuple[str, int]:
        """Words for another cube, and for what that is to be put on."""
        others = np.flatnonzero(self.aims[1:, 0] >= 0) + 1
        index = int(others[rng.integers(len(others))])
        return self.words(index, phrasing, rng), index

    def reward_terms(self) -> dict[str, float]:
        """The parts of a step's reward."""
        mine, base = self.table.props.bodies[:2]
        on_top = base + np.array([0, 0, 2 * HALF])
        return {
            **self.grasp_terms(),
            "progress": near(float(np.linalg.norm(on_top - mine)), 0.2),
            "success": self.success() * rest(1.8, self.horizon - self.step_count),
        }

    @property
    def target_name(self) -> str:
        return f"{self.colours[0]} cube (on the {self.colours[1]} one)"

    def diagnosis(self) -> str:
        """Why the episode failed, in a few words."""
        heights = self.table.props.bodies[:, 2]
        if self._stayed[1, 0] >= REST:
            return "wrong way round"
        if self._stayed[0].max() >= REST:
            return "wrong cube below"
        if self.gripped[1:].any() and not self.gripped[0]:
            return "wrong cube"
        if heights[:2].min() < FALLEN:
            return "fell off the table" if heights[0] < FALLEN else "the other cube fell off the table"
        if not self.touched[0]:
            return "never touched"
        if not self.gripped[0]:
            return "pushed, not grasped" if self.moved()[0] > MOVED else "not grasped"
        if self._stayed[0, 1]:
            return "did not stay on it"
        return "grasped too late" if self.table.props.touching()[0].all() else "dropped"

    def words(self, index: int, phrasing: Any, rng: np.random.Generator) -> str:
        meant = self.meaning(index)
        words = IT_WORDS[rng.integers(len(IT_WORDS))], BASE_WORDS[rng.integers(len(BASE_WORDS))]
        return TEMPLATES.pick(phrasing, rng).format(
            it=f"{meant['cube']} {words[0]}", base=f"{meant['base']} {words[1]}"
        )

    def meaning(self, index: int) -> dict[str, str]:
        body, base = self.aims[index]
        return {"cube": str(self.colours[body]), "base": str(self.colours[base])}


def _on(cubes: np.ndarray) -> np.ndarray:
    """Which cubes (N, 3) lie on which, as far as places tell, (N, N) bool: [i, j] is whether i is above j, with its
    middle over it.
    """
    between = cubes[:, None] - cubes[None]
    found: np.ndarray = np.linalg.norm(between[..., :2], axis=-1) < HALF
    return found & (np.abs(between[..., 2] - 2 * HALF) < LEVEL)


def _pair(rng: np.random.Generator, options: Mapping[str, Any]) -> tuple[str, str]:
    """The colours of what is meant, and of what it is put on."""
    combinations, asked = options.get("combinations", "train"), "cube" in options or "base" in options
    pairs = [
        pair
        for pair in permutations(COLOURS, 2)
        if options.get("cube") in (None, pair[0])
        and options.get("base") in (None, pair[1])
        and (asked or combinations == "all" or (pair in HELD_OUT_PAIRS) == (combinations == "held_out"))
    ]
    if not pairs:
        raise ValueError(f"options cube and base are both {options['cube']!r}; a cube cannot be put on itself")
    return pairs[rng.integers(len(pairs))]


def _places(rng: np.random.Generator, count: int) -> np.ndarray:
    """Where n cubes are, (n, 2) metres, with room for the fingers around each."""
    while True:
        found: list[np.ndarray] = []
        for _ in range(TRIES):  # one after the other, until all have found a place
            spot = rng.uniform(*REGION)
            if nearest(spot, found) > APART:
                found.append(spot)
            if len(found) == count:
                return np.array(found)


_CUBE = r"(?:the |a )?(?:other )?({colours}) (?:{nouns})".format(colours="|".join(COLOURS), nouns="|".join(BASE_WORDS))
_ON = r"(?:down )?(?:on|onto|upon|atop)(?: (?:the )?top of)?"
_PUT = r"(?:put|place|set|stack|drop)"
FORMS = tuple(
    re.compile(rf"(?:(?:can|could) you )?(?:please )?{form}(?: please)?")
    for form in (
        rf"{_PUT} (?:down )?{_CUBE} {_ON} {_CUBE}",
        rf"(?:take|grab|pick up) {_CUBE} and {_PUT} it {_ON} {_CUBE}",
        rf"{_CUBE} (?:belongs|goes) {_ON} {_CUBE}",
    )
)


def read(text: str) -> dict[str, str]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it does not say that one cube is to be put on another one, both named by their colours.
    """
    said = words_of(text)
    for form in FORMS:
        if (found := form.fullmatch(said)) and found[1] != found[2]:
            return {"cube": found[1], "base": found[2]}
    hint = near_miss(said.split(), [*COLOURS, *BASE_WORDS])
    raise ValueError(
        f"instruction {text!r} must say that one cube, named by its colour, is to be put on another one{hint}, as in "
        f"'put the red cube on the green one'; colours are {', '.join(COLOURS)}"
    )


# The expert: phases that the state alone decides.

CARRIED = 0.095  # height at which cubes are carried, metres
OVER = (0.010, 0.03)  # from the other one's middle: within which it is down, and beyond which it is high, metres
CENTRED = 0.012  # how far from that middle it may be let go, metres


def expert(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> np.ndarray:
    """What to do now, (5,) in [-1, 1]: grasp the cube, up, and over the other one, down, open, up."""
    known = info["privileged"]
    index, goal = aim_of(known)
    thing, base = known["bodies"][index], known["bodies"][goal]
    to_base = base - thing
    above = float(-to_base[2] - 2 * HALF)  # of the cube over where it is to lie
    if np.hypot(*to_base[:2]) < CENTRED and abs(above) < LEVEL / 2:  # let go, then up
        rise = 0.5 if known["opening"] > HALF + ROOM else 0.0
        return np.array([0, 0, rise, 0, 1], np.float32)
    if not known["gripped"][index]:
        return grasp(known, index, HALF, faces=True)
    return bring(to_base[:2], thing[2], carried=CARRIED, lowered=base[2] + 2 * HALF - LEVEL, funnel=OVER)
