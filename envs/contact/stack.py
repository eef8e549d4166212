"""`stack`: put the named cube on top of another named one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, permutations
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contact.base import FALLEN, MOVED, RESTING, TRIES, ContactTask, aim_of, nearest
from envs.contact.grasp import ROOM, bring, grasp
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


class StackTask(ContactTask):
    """Three or four cubes in different colours. Success: the named one lies on the other named one, let go and at rest
    for a quarter of a second. Cube 0 is meant, and is to be put on cube 1.

    Reward, each step: up to 0.3 with the hand near the cube, 0.5 while both fingers hold it in the air, and up to 1
    with it near its place on the other one; success pays what those would for the rest of the episode, and 3. See
    `reward_terms`.

    `reset(options=…)` takes `combinations`, the pairs of colours ("train", "held_out" or "all"), and `cube` and `base`,
    the colours of what is meant and of what it is put on.
    """

    actions: ClassVar[tuple[str, ...]] = ("dx", "dy", "dz", "yaw_rate", "gripper")
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
        self._gripped = np.zeros(CUBES, np.bool_)
        return self.words(0, phrasing, rng), 0

    def note(self) -> None:
        super().note()
        props = self.table.props
        cubes, touching = props.bodies, props.touching()
        free = (props.speeds < RESTING) & ~touching.any(axis=1)
        self._placed = np.where(_on(cubes) & free[:, None], self._placed + 1, 0)
        self._stayed = np.maximum(self._stayed, self._placed)
        self._gripped |= touching.all(axis=1)

    def success(self) -> bool:
        return self.judge(0)

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if cube `index` was meant, to be put on a cube of its own."""
        body, base = self.aims[index]
        return bool(self._stayed[body, base] >= REST)

    def counterfactual(self, phrasing: Any, rng: np.random.Generator) -> tuple[str, int]:
        """Words for another cube, and for what that is to be put on."""
        others = np.flatnonzero(self.aims[1:, 0] >= 0) + 1
        index = int(others[rng.integers(len(others))])
        return self.words(index, phrasing, rng), index

    def knowledge(self) -> Mapping[str, Any]:
        props, seen = self.table.props, self.table.arm.agent_pos()
        return {
            **super().knowledge(),
            "yaw": float(np.arctan2(seen[3], seen[4])),
            "opening": float(seen[5]),
            "yaws": props.yaws,
            "gripped": props.touching().all(axis=1),
        }

    def reward_terms(self) -> dict[str, float]:
        """The parts of a step's reward."""
        props = self.table.props
        mine, base = props.bodies[:2]
        on_top = base + np.array([0, 0, 2 * HALF])
        return {
            "approach": 0.3 * near(float(np.linalg.norm(self.table.arm.position - mine)), 0.2),
            "progress": near(float(np.linalg.norm(on_top - mine)), 0.2),
            "grasp": 0.5 * float(props.touching()[0].all() and mine[2] - self.start[0, 2] > 0.005),
            "success": self.success() * rest(1.8, self.horizon - self.step_count),
        }

    @property
    def target_name(self) -> str:
        return f"{self.colours[0]} cube (on the {self.colours[1]} one)"

    def diagnosis(self) -> str:
        """Why the episode failed, in a few words."""
        far = self.moved()
        if self._stayed[1, 0] >= REST:
            return "wrong way round"
        if self._stayed[0].max() >= REST:
            return "wrong cube below"
        if self._gripped[1:].any() and not self._gripped[0]:
            return "wrong cube"
        if self.table.props.bodies[0, 2] < FALLEN:
            return "fell off the table"
        if not self.touched[0]:
            return "never touched"
        if not self._gripped[0]:
            return "pushed, not grasped" if far[0] > MOVED else "not grasped"
        if self._stayed[0, 1]:
            return "did not stay on it"
        return "grasped too late" if self.table.props.touching()[0].all() else "dropped beside it"

    def words(self, index: int, phrasing: Any, rng: np.random.Generator) -> str:
        body, base = self.aims[index]
        words = IT_WORDS[rng.integers(len(IT_WORDS))], BASE_WORDS[rng.integers(len(BASE_WORDS))]
        return TEMPLATES.pick(phrasing, rng).format(
            it=f"{self.colours[body]} {words[0]}", base=f"{self.colours[base]} {words[1]}"
        )


def _on(cubes: np.ndarray) -> np.ndarray:
    """Which cubes (N, 3) lie on which, as far as places tell: above, and with their middles over them, (N, N) bool."""
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


def read(text: str) -> dict[str, str]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it does not name two cubes by their colours, the one that is meant first, and "on" between them.
    """
    tokens = words_of(text).split()
    named = [(i, colour) for i, (colour, noun) in enumerate(pairwise(tokens)) if colour in COLOURS]
    nouns = [tokens[i + 1] for i, _ in named]
    taken = {"off", "out", "from", "away", "under", "below", "beside", "next"} & set(tokens)
    fits = len(named) == 2 == len({colour for _, colour in named}) and not taken
    fits = fits and nouns[0] in IT_WORDS and nouns[1] in BASE_WORDS
    if not fits or not {"on", "onto"} & set(tokens[named[0][0] : named[1][0]]):
        hint = near_miss(tokens, [*COLOURS, *IT_WORDS])
        raise ValueError(
            f"instruction {text!r} must name one cube by its colour, and another one that it is to be put on{hint}, as "
            f"in 'put the red cube on the green one'; colours are {', '.join(COLOURS)}"
        )
    return {"cube": named[0][1], "base": named[1][1]}


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
