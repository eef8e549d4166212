"""`push`: push the named block onto the named mat, past the others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.cameras import CameraSpec
from envs.contact.scene import BLOCKS, HALF, MAT_HALF, MATS
from envs.contact.table import ContactTable
from envs.mujoco_task import MujocoTask
from envs.segments import Thing
from envs.tabletop.arm import AGENT_POS_HIGH, AGENT_POS_LOW, AGENT_POS_NAMES, MAX_SPEED, WORKSPACE
from envs.tabletop.instructions import Templates, near_miss
from envs.tabletop.objects import COLOUR_JITTER, COLOURS, COMBINATIONS
from envs.tabletop.scene import BACKDROP_GROUP
from envs.words import words_of

HORIZON = 200  # control steps: 10 s
ACTIONS = ("dx", "dy", "dz")
FLOOR = 0.02  # of the pinch point, metres
RESTING = 0.01  # m/s: slower is at rest
REST = 5  # control steps in a row for which the block lies on the mat at rest
FALLEN = -0.02  # height of a block's middle below which it has left the table, metres
MOVED = 0.02  # metres by which a block must have moved to count as pushed

# Never together in training, as what is meant and where it is to go.
HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {("red", "blue"), ("green", "yellow"), ("purple", "orange"), ("yellow", "red")}
)
BLOCK_WORDS, MAT_WORDS = ("cube", "block"), ("mat", "pad")

TEMPLATES = Templates(
    train=(
        "push the {block} onto the {mat}",
        "push the {block} to the {mat}",
        "slide the {block} onto the {mat}",
        "slide the {block} over to the {mat}",
        "shove the {block} to the {mat}",
        "move the {block} to the {mat}",
        "bring the {block} to the {mat}",
        "get the {block} onto the {mat}",
        "please push the {block} to the {mat}",
        "push the {block} across the table to the {mat}",
        "the {block} belongs on the {mat}",
    ),
    held_out=(
        "please slide the {block} to the {mat}",
        "shove the {block} across the table onto the {mat}",
        "bring the {block} over to the {mat}",
        "please get the {block} to the {mat}",
    ),
)

REGION = np.array([[-0.17, -0.19], [0.17, 0.19]])  # where blocks and mats are put, x and y in metres
FAR_FROM_MATS = 0.105  # of blocks from the middles of mats at the start, metres
APART = {"blocks": 0.085, "mats": 0.135}  # middles, metres
CLEAR = 0.075  # of the way of the named block, and of the hand behind it, from other blocks, metres
MARGIN = 0.005  # of where the hand begins, from the border of where it can be, metres
TRIES = 200  # places, before all are drawn anew


class PushTask(MujocoTask):
    """Success: the named block's middle on the named mat, at rest for a quarter of a second. Three or four blocks, two
    or three mats; blocks differ in colour, and mats do.

    Things 0 to 3 of the labels are the blocks, of which 0 is meant, and 4 to 6 the mats, of which 4 is the goal.

    Reward, each step: `-|hand - block| - 3 |block - mat|`, in metres, and 1 for success; see `reward_terms`.

    `reset(options=…)` takes `combinations`, the pairs of colours of block and mat ("train", "held_out" or "all"), and
    `block` and `mat`, the colours of what is meant.
    """

    views: ClassVar[Mapping[str, CameraSpec]] = {"front": "front", "wrist": "wrist"}
    things: tuple[Thing, ...] = (
        *(Thing(bodies=(f"block{i}",)) for i in range(BLOCKS)),
        *(Thing(bodies=(f"mat{i}",)) for i in range(MATS)),
    )
    backdrop_groups: ClassVar[tuple[int, ...]] = (BACKDROP_GROUP,)
    agent_pos_names: ClassVar[tuple[str, ...]] = AGENT_POS_NAMES
    agent_pos_bounds: ClassVar[tuple[Any, Any]] = (AGENT_POS_LOW, AGENT_POS_HIGH)
    horizon: ClassVar[int] = HORIZON
    phrasings: ClassVar[tuple[str, ...]] = ("train", "held_out")
    own_options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "combinations": COMBINATIONS,
        "block": tuple(COLOURS),
        "mat": tuple(COLOURS),
    }

    def __init__(self, **settings: Any) -> None:
        super().__init__(ContactTable(ACTIONS, FLOOR), **settings)

    @property
    def table(self) -> ContactTable:
        table = self.env.unwrapped
        assert isinstance(table, ContactTable)
        return table

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        rng, props = self.rng, self.table.props
        self._blocks, self._mats = _colours(rng, options)
        blocks, mats = _places(rng, len(self._blocks), len(self._mats))
        jitter = rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, (BLOCKS + MATS, 3))
        looks = np.array([COLOURS[name] for name in (*self._blocks, *self._mats)])
        looks = np.clip(looks + jitter[: len(looks)], 0, 1)
        yaws = rng.uniform(-np.pi / 4, np.pi / 4, len(blocks))
        props.place(blocks, yaws, looks[: len(blocks)], mats, looks[len(blocks) :])
        start = rng.uniform((*WORKSPACE[0, :2], 0.13), (*WORKSPACE[1, :2], 0.25))
        self.table.arm.reset(start, opening=0.0)
        # Where each block is to go if it is meant: the named one onto the first mat, any other one onto any.
        self._mat_of = np.array([0, *rng.integers(len(mats), size=len(blocks) - 1)])
        self._placed = np.zeros((len(blocks), len(mats)), np.int64)  # control steps at rest there, in a row
        self._start, self._touched = props.blocks, np.zeros(BLOCKS, np.bool_)
        return self._say(0, 0, phrasing, rng), 0

    def note(self) -> None:
        props = self.table.props
        blocks, mats = props.blocks[: len(self._blocks)], props.mats[: len(self._mats)]
        inside = (np.abs(blocks[:, None, :2] - mats[None, :, :2]) < MAT_HALF).all(-1) & (blocks[:, 2] > 0)[:, None]
        resting = props.speeds[: len(blocks)] < RESTING
        self._placed = np.where(inside & resting[:, None], self._placed + 1, 0)
        self._touched |= props.touched()

    def success(self) -> bool:
        return self.judge(0)

    def is_over(self) -> bool:
        return self.success() or bool(self.table.props.blocks[0, 2] < FALLEN)

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if thing `index` was meant: a block, to go onto a mat of its own, or a
        mat, for the named block.
        """
        block, mat = (index, int(self._mat_of[index])) if index < BLOCKS else (0, index - BLOCKS)
        return bool(self._placed[block, mat] >= REST)

    def counterfactual(self, phrasing: Any, rng: np.random.Generator) -> tuple[str, int]:
        """Words for another block, or for another mat."""
        others = [*range(1, len(self._blocks)), *range(BLOCKS + 1, BLOCKS + len(self._mats))]
        index = int(others[rng.integers(len(others))])
        block, mat = (index, int(self._mat_of[index])) if index < BLOCKS else (0, index - BLOCKS)
        return self._say(block, mat, phrasing, rng), index

    def agent_pos(self) -> np.ndarray:
        return self.table.arm.agent_pos()

    def present(self) -> np.ndarray:
        found = np.zeros(len(self.things), np.bool_)
        found[: len(self._blocks)] = True
        found[BLOCKS : BLOCKS + len(self._mats)] = True
        return found

    def knowledge(self) -> Mapping[str, Any]:
        props = self.table.props
        return {"hand": self.table.arm.position, "blocks": props.blocks, "mats": props.mats, "goal": BLOCKS}

    def reward(self, inner: float, success: bool) -> float:
        return sum(self.reward_terms().values())

    def reward_terms(self) -> dict[str, float]:
        """The parts of a step's reward."""
        block, mat = self.table.props.blocks[0], self.table.props.mats[0]
        return {
            "approach": -float(np.linalg.norm(self.table.arm.position - block)),
            "progress": -3 * float(np.linalg.norm(block[:2] - mat[:2])),
            "success": float(self.success()),
        }

    @property
    def target_name(self) -> str:
        return f"{self._blocks[0]} cube (to the {self._mats[0]} mat)"

    def diagnosis(self) -> str:
        """Why the episode failed, in a few words."""
        props = self.table.props
        far = np.linalg.norm(props.blocks - self._start, axis=1)[: len(self._blocks)]
        if self._placed[0, 1:].max(initial=0) >= REST:
            return "wrong mat"
        if props.blocks[0, 2] < FALLEN:
            return "pushed off the table"
        if far[1:].max(initial=0) > MOVED and far[0] < MOVED:
            return "wrong block"
        if not self._touched[0]:
            return "never touched"
        return "stopped short" if far[0] > MOVED else "hardly moved"

    def _say(self, block: int, mat: int, phrasing: Any, rng: np.random.Generator) -> str:
        words = BLOCK_WORDS[rng.integers(len(BLOCK_WORDS))], MAT_WORDS[rng.integers(len(MAT_WORDS))]
        return TEMPLATES.pick(phrasing, rng).format(
            block=f"{self._blocks[block]} {words[0]}", mat=f"{self._mats[mat]} {words[1]}"
        )


def _colours(rng: np.random.Generator, options: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Colours of this scene's blocks and mats; the first of each is meant."""
    combinations, names = options.get("combinations", "train"), list(COLOURS)
    pairs = [
        (block, mat)
        for block in names
        for mat in names
        if options.get("block") in (None, block) and options.get("mat") in (None, mat)
    ]
    asked = "block" in options or "mat" in options
    if combinations != "all" and not asked:
        pairs = [pair for pair in pairs if (pair in HELD_OUT_PAIRS) == (combinations == "held_out")]
    pair = pairs[rng.integers(len(pairs))]
    counts = rng.integers(3, BLOCKS + 1), rng.integers(2, MATS + 1)
    blocks, mats = ([first, *rng.permutation([n for n in names if n != first])] for first in pair)
    return blocks[: counts[0]], mats[: counts[1]]


def _places(rng: np.random.Generator, blocks: int, mats: int) -> tuple[np.ndarray, np.ndarray]:
    """Where n blocks and m mats are, `(n, 2)` and `(m, 2)` metres, with room for pushing the first block onto the first
    mat along a straight line.
    """
    while True:
        where_mats, where = np.zeros((0, 2)), np.zeros((0, 2))
        for _ in range(TRIES):  # one after the other, until all have found a place
            spot = rng.uniform(*REGION)
            if len(where_mats) < mats:
                if _nearest(spot, where_mats) > APART["mats"]:
                    where_mats = np.append(where_mats, [spot], axis=0)
                continue
            if _nearest(spot, where_mats) < FAR_FROM_MATS or _nearest(spot, where) < APART["blocks"]:
                continue
            begin, _ = behind(where[0] if len(where) else spot, where_mats[0])
            if len(where) and _from_line(spot, begin, where_mats[0]) < CLEAR:
                continue
            if (begin < WORKSPACE[0, :2] + MARGIN).any() or (begin > WORKSPACE[1, :2] - MARGIN).any():
                continue
            where = np.append(where, [spot], axis=0)
            if len(where) == blocks:
                return where, where_mats


def _nearest(spot: np.ndarray, others: np.ndarray) -> float:
    return float(np.linalg.norm(others - spot, axis=1).min(initial=1.0))


def _from_line(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Distance of a point from the line between two others, all (2,)."""
    along = np.clip((point - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-9), 0, 1)
    return float(np.linalg.norm(point - a - along * (b - a)))


def read(text: str) -> dict[str, str]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it does not name one block and one mat by their colours.
    """
    tokens = words_of(text).split()
    found: dict[str, str] = {}
    for kind, nouns in (("block", BLOCK_WORDS), ("mat", MAT_WORDS)):
        named = {before for before, noun in pairwise(tokens) if noun in nouns and before in COLOURS}
        if len(named) != 1 or sum(token in COLOURS for token in tokens) != 2:
            hint = near_miss(tokens, [*COLOURS, *nouns])
            raise ValueError(
                f"instruction {text!r} must name one {kind} by its colour{hint}, as in 'push the red cube onto the "
                f"green mat'; colours are {', '.join(COLOURS)}"
            )
        found[kind] = named.pop()
    return found


# The expert: phases that the state alone decides.

BEHIND = 0.066  # distance of the hand from the block's middle where it comes down, metres
ABOVE, LOW = 0.105, 0.028  # height of the pinch point over the blocks, and beside one, metres
LINE = 0.02  # how far the hand may be beside the line through block and mat, metres
DONE = 0.012  # of the block's middle from the mat's: pushed far enough, metres
FUNNEL = (0.014, 0.03)  # distance from that place within which the hand is low, and beyond which it is high, metres
GAIN = 5.0  # 1/s
PUSH_SPEED = 0.12  # m/s


def behind(block: np.ndarray, mat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the hand begins to push, and the direction in which it does, (2,) each."""
    way = mat - block
    way = way / max(float(np.linalg.norm(way)), 1e-6)
    return block - BEHIND * way, way


def expert(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> np.ndarray:
    """What to do now, (3,) in [-1, 1]: over the blocks to the place behind the named one, down, and push."""
    known = info["privileged"]
    hand, block, mat = known["hand"], known["blocks"][0], known["mats"][0]
    begin, way = behind(block[:2], mat[:2])
    left = float(np.linalg.norm(mat[:2] - block[:2]))
    from_block = hand[:2] - block[:2]
    back = -float(from_block @ way)
    beside = from_block + back * way
    velocity = np.zeros(3)
    if left < DONE:  # let it be: away from it, then up
        velocity[:2] = -0.1 * way if back < BEHIND else 0
        velocity[2] = 0.1 if back > BEHIND - 0.01 else 0
    elif hand[2] < 2 * HALF and back > 0.8 * HALF:  # beside the block, on the right side
        velocity[2] = GAIN * (LOW - hand[2])
        if np.linalg.norm(beside) < LINE:  # push
            velocity[:2] = min(PUSH_SPEED, 0.02 + 1.5 * left) * way - GAIN * beside
        elif back < BEHIND - 0.015:  # slipped off: back first
            velocity[:2] = -PUSH_SPEED * way
        else:
            velocity[:2] = GAIN * (begin - hand[:2])
    elif (
        hand[2] < 2 * HALF + 0.01 and back <= 0.8 * HALF and np.linalg.norm(from_block) < BEHIND
    ):  # up, free of the block
        velocity[2] = GAIN * (ABOVE - hand[2])
    else:  # over everything to the place behind it, and down
        aside = float(np.linalg.norm(begin - hand[:2]))
        height = LOW + (ABOVE - LOW) * np.clip((aside - FUNNEL[0]) / (FUNNEL[1] - FUNNEL[0]), 0, 1)
        velocity[:2] = GAIN * (begin - hand[:2])
        velocity[2] = GAIN * (height - hand[2])
    action = velocity / MAX_SPEED[:3]
    limited: np.ndarray = (action / max(1.0, float(np.abs(action).max()))).astype(np.float32)
    return limited
