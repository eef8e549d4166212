"""`catch`: grasp a thing that is carried round on a turntable, and lift it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contact.base import FALLEN, MOVED, aim_of, limited
from envs.contact.grasp import GAIN, GraspTask, grasp
from envs.contact.scene import DISC_TOP, Part, cube
from envs.rewards import near, rest
from envs.tabletop.arm import MAX_SPEED, WORKSPACE
from envs.tabletop.instructions import Templates, near_miss
from envs.tabletop.objects import COLOURS
from envs.words import words_of

HORIZON = 160  # control steps: 8 s
CUBES, TABLES = 4, 2  # at most two cubes on each table
HALF = 0.018  # of a cube's side, metres
LIFTED, HOLD = 0.08, 8  # metres above where it lay, and control steps in a row for which it is held there
RATES = (0.35, 1.1)  # radians a second of a turntable
FASTER = 2.0  # how many times as fast one table turns as the other, at least, where the words are about speed
RING = (0.048, 0.062)  # distance of cubes from the middle of their table, metres

TEMPLATES = Templates(
    train=(
        "grab the {it}",
        "catch the {it}",
        "grasp the {it}",
        "pick up the {it}",
        "pick up the {it} as it goes round",
        "catch the {it} and lift it",
        "please grab the {it}",
        "take the {it} off the table",
        "lift the {it} off the table",
    ),
    held_out=(
        "please catch the {it}",
        "grab the {it} and lift it",
        "grasp the {it} as it goes round",
        "please take the {it} off the table",
    ),
)
NOUNS = ("cube", "block")
VERBS = {"grab", "catch", "grasp", "pick", "lift"}
# What sets one apart that is not named by its colour; {noun} is one of NOUNS.
MOTIONS: dict[str, tuple[str, ...]] = {
    "clockwise": ("one going clockwise", "{noun} moving clockwise", "{noun} that goes clockwise"),
    "counterclockwise": (
        "one going counterclockwise",
        "{noun} moving counterclockwise",
        "{noun} that goes counterclockwise",
    ),
    "fastest": ("fastest {noun}", "{noun} that moves fastest", "fastest one"),
    "slowest": ("slowest {noun}", "{noun} that moves slowest", "slowest one"),
}
OPPOSITE = {"clockwise": "counterclockwise", "fastest": "slowest"}
OPPOSITE |= {after: before for before, after in OPPOSITE.items()}


class CatchTask(GraspTask):
    """Two turntables carry two to four cubes. Success: both fingers hold the named cube 8 cm above where it lay for 0.4
    seconds. Cubes 0 and 1 are on the first table, 2 and 3 on the second.

    Words name a colour or a motion. Where they name a motion, each table has one cube, and the other table turns the
    other way or at another speed.

    Reward, each step: up to 0.3 with the hand near the cube, 0.5 while both fingers hold it in the air, and up to 1
    with it near the height to which it is to be lifted; success pays what those would for the rest of the episode, and
    3. See `reward_terms`.

    `reset(options=…)` takes `colour` or `motion` of what is meant.
    """

    floor: ClassVar[float] = DISC_TOP + 0.012
    bodies: ClassVar[Sequence[Part]] = tuple(cube(f"cube{i}", HALF) for i in range(CUBES))
    fixtures: ClassVar[Sequence[Part]] = ()
    turntables: ClassVar[Sequence[tuple[float, float]]] = ((0.0, -0.105), (0.0, 0.105))
    horizon: int = HORIZON
    own_options: ClassVar[Mapping[str, tuple[str, ...]]] = {"colour": tuple(COLOURS), "motion": tuple(MOTIONS)}

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        rng, props = self.rng, self.table.props
        drawn = rng.integers(2 + len(MOTIONS))  # a third of the episodes is about colours
        motion = options.get("motion") or (None if drawn < 2 else list(MOTIONS)[drawn - 2])
        self._motion: str | None = None if "colour" in options else motion
        side = int(rng.integers(TABLES))
        target = 2 * side + int(rng.integers(2))
        there = rng.random(CUBES) < 0.7
        other = 2 * (1 - side) + int(rng.integers(2))
        if self._motion:  # one on each table: the picture must not say which is meant
            there[:] = False
        there[[target, other]] = True
        names = rng.permutation(list(COLOURS)).tolist()
        if "colour" in options:
            names.remove(options["colour"])
            names.insert(target, options["colour"])
        colours = [names[i] if there[i] else None for i in range(CUBES)]
        rates = _rates(rng, self._motion, side)
        angles = rng.uniform(0, 2 * np.pi, TABLES)
        # Two on one table are on opposite sides of it.
        turned = np.array([angles[i // 2] + np.pi * (i % 2) + rng.uniform(-0.6, 0.6) for i in range(CUBES)])
        radius = rng.uniform(*RING, CUBES)
        middles = np.repeat(np.array(self.turntables), 2, axis=0)
        arms = radius[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=1)
        self.arrange(colours, middles + arms, rng.uniform(-np.pi / 4, np.pi / 4, CUBES), on=DISC_TOP)
        start = rng.uniform((*WORKSPACE[0, :2], 0.15), (*WORKSPACE[1, :2], 0.25))
        self.table.arm.reset(start, opening=float(rng.uniform(0.01, 0.035)))
        for table, rate in enumerate(rates):
            props.spin(table, rate)
        for i in np.flatnonzero(there):
            rate = rates[i // 2]
            props.push(int(i), rate * np.array([-arms[i, 1], arms[i, 0]]), rate)
        self._rates = rates
        self._held, self._longest = np.zeros(CUBES, np.int64), np.zeros(CUBES, np.int64)  # control steps in a row
        self._best = np.zeros(CUBES)
        self.target = target  # by which the words are chosen
        self.aims = np.full((CUBES, 2), -1, np.int64)
        self.aims[there, 0] = np.flatnonzero(there)
        return self.words(target, phrasing, rng), target

    def note(self) -> None:
        super().note()
        props = self.table.props
        both, height = props.touching().all(axis=1), props.bodies[:, 2] - self.start[:, 2]
        self._best = np.maximum(self._best, height)
        self._held = np.where(both & (height > LIFTED), self._held + 1, 0)
        self._longest = np.maximum(self._longest, self._held)

    def success(self) -> bool:
        return self.judge(self.target)

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if cube `index` was meant."""
        return bool(self._longest[index] >= HOLD)

    def counterfactual(self, phrasing: Any, rng: np.random.Generator) -> tuple[str, int]:
        """Words for another cube: by the opposite motion where the words name one, else by its colour."""
        others = [int(i) for i in np.flatnonzero(self.present()) if i != self.target]
        index = others[rng.integers(len(others))]
        return self.words(index, phrasing, rng), index

    def named(self, options: Mapping[str, Any]) -> int | None:
        """Which cube of this scene reset options mean, None if none."""
        if "colour" in options:
            return self.colours.index(options["colour"]) if options["colour"] in self.colours else None
        if self._motion is None or options["motion"] not in (self._motion, OPPOSITE[self._motion]):
            return None
        return next(
            int(i) for i in np.flatnonzero(self.present()) if (i == self.target) == (options["motion"] == self._motion)
        )

    def meaning(self, index: int) -> dict[str, str]:
        if self._motion:
            return {"motion": self._motion if index == self.target else OPPOSITE[self._motion]}
        return {"colour": str(self.colours[index])}

    def knowledge(self) -> Mapping[str, Any]:
        props = self.table.props
        return {**super().knowledge(), "velocities": props.velocities, "turning": props.turning}

    def reward_terms(self) -> dict[str, float]:
        """The parts of a step's reward."""
        height = float(self.table.props.bodies[self.target, 2] - self.start[self.target, 2])
        return {
            **self.grasp_terms(),
            "progress": near(max(0.0, LIFTED - height), 0.1),
            "success": self.success() * rest(1.8, self.horizon - self.step_count),
        }

    @property
    def target_name(self) -> str:
        special = f" ({self._motion})" if self._motion else ""
        return f"{self.colours[self.target]} cube{special}"

    def diagnosis(self) -> str:
        """Why the episode failed, in a few words."""
        mine = self.target
        others = np.delete(np.arange(CUBES), mine)
        if (self._best[others] > MOVED).any() and not self.gripped[mine]:
            return "wrong object"
        if self.table.props.bodies[mine, 2] < FALLEN:
            return "fell off the table"
        if self._best[mine] > MOVED:
            return "lifted too late" if self.table.props.touching()[mine].all() else "dropped"
        if self.gripped[mine]:
            return "slipped out of the fingers"
        return "missed the interception" if self.touched[mine] else "never touched"

    def words(self, index: int, phrasing: Any, rng: np.random.Generator) -> str:
        noun, meant = NOUNS[rng.integers(len(NOUNS))], self.meaning(index)
        it = f"{meant.get('colour')} {noun}"
        if "motion" in meant:
            ways = MOTIONS[meant["motion"]]
            it = ways[rng.integers(len(ways))].format(noun=noun)
        return TEMPLATES.pick(phrasing, rng).format(it=it)


def _rates(rng: np.random.Generator, motion: str | None, side: int) -> np.ndarray:
    """How fast the tables turn, counterclockwise seen from above, (2,) radians a second."""
    while True:
        rates = rng.uniform(*RATES, TABLES) * rng.choice([-1.0, 1.0], TABLES)
        mine, other = rates[side], rates[1 - side]
        if motion == "clockwise" and not mine < 0 < other:
            continue
        if motion == "counterclockwise" and not other < 0 < mine:
            continue
        if motion == "fastest" and abs(mine) < FASTER * abs(other):
            continue
        if motion == "slowest" and abs(other) < FASTER * abs(mine):
            continue
        return rates


def read(text: str) -> dict[str, str]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it does not ask for grasping one cube, named by its colour or by how it moves.
    """
    tokens = re.sub(r"\b(?:counter|anti) ?clockwise\b", "counterclockwise", words_of(text)).split()
    asks = bool(VERBS & set(tokens)) or {"take", "off"} <= set(tokens)
    colours = {colour for colour, noun in pairwise(tokens) if colour in COLOURS and noun in (*NOUNS, "one")}
    motions = {token for token in tokens if token in MOTIONS}
    named = len(colours) + len(motions)
    if not asks or named != 1 or sum(token in COLOURS for token in tokens) != len(colours):
        hint = near_miss(tokens, [*COLOURS, *MOTIONS, *NOUNS])
        raise ValueError(
            f"instruction {text!r} must ask for one cube by its colour or its motion{hint}, as in 'grab the purple "
            f"cube' or 'catch the one going clockwise'; colours are {', '.join(COLOURS)}, motions {', '.join(MOTIONS)}"
        )
    return {"colour": colours.pop()} if colours else {"motion": motions.pop()}


def expert(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> np.ndarray:
    """What to do now, (5,) in [-1, 1]: go with the cube, down to it, close, and up."""
    known = info["privileged"]
    index, _ = aim_of(known)
    if not known["gripped"][index]:
        return grasp(known, index, HALF, faces=True)
    up = np.array([0.0, 0.0, GAIN * (DISC_TOP + HALF + LIFTED + 0.04 - known["hand"][2]) + 0.02])
    return np.array([*limited(up / MAX_SPEED[:3]), 0.0, -1.0], np.float32)
