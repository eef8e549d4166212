"""`push`: push the named block onto the named mat, past the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contact.base import FALLEN, MOVED, RESTING, TRIES, ContactTask, aim_of, from_line, limited, nearest
from envs.contact.scene import MAT_HALF, Part, cube, mat
from envs.rewards import near, rest
from envs.tabletop.arm import MAX_SPEED, WORKSPACE
from envs.tabletop.instructions import Templates, near_miss
from envs.tabletop.objects import COLOURS, COMBINATIONS
from envs.words import words_of

HORIZON = 200  # control steps: 10 s
BLOCKS, MATS = 4, 3  # at most; one of each less at least
HALF = 0.025  # of a block's side, metres
REST = 5  # control steps in a row for which the block lies on the mat at rest

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
ALTERNATIVES = 2  # pairs of block and mat beside the meant one that can be pushed; one may be kept for testing
MARGIN = 0.005  # of where the hand begins, from the border of where it can be, metres


class PushTask(ContactTask):
    """Success: the named block's middle on the named mat, at rest for a quarter of a second. Three or four blocks, two
    or three mats; blocks differ in colour, and mats do. Block 0 and mat 0 are meant.

    Reward, each step: up to 0.5 with the hand near where it pushes from, to which it has to come over the blocks, and
    up to 4 for the share of the block's way that is done; success pays what those would for the rest of the episode,
    and 3. See `reward_terms`.

    `reset(options=…)` takes `combinations`, the pairs of colours of block and mat ("train", "held_out" or "all"), and
    `block` and `mat`, the colours of what is meant.
    """

    actions: ClassVar[tuple[str, ...]] = ("dx", "dy", "dz")
    floor: ClassVar[float] = 0.02
    bodies: ClassVar[Sequence[Part]] = tuple(cube(f"block{i}", HALF) for i in range(BLOCKS))
    fixtures: ClassVar[Sequence[Part]] = tuple(mat(f"mat{i}") for i in range(MATS))
    horizon: int = HORIZON
    own_options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "combinations": COMBINATIONS,
        "block": tuple(COLOURS),
        "mat": tuple(COLOURS),
    }

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        rng = self.rng
        colours = _colours(rng, options)
        blocks, mats = (sum(colour is not None for colour in part) for part in (colours[:BLOCKS], colours[BLOCKS:]))
        self.arrange(colours, _places(rng, blocks, mats), rng.uniform(-np.pi / 4, np.pi / 4, BLOCKS))
        start = rng.uniform((*WORKSPACE[0, :2], 0.13), (*WORKSPACE[1, :2], 0.25))
        self.table.arm.reset(start, opening=0.0)
        # Where each block is to go if it is meant: the named one onto the first mat, another one where it can.
        possible = self._possible(blocks, mats)
        self._mat_of = np.zeros(BLOCKS, np.int64)
        for block in range(1, blocks):
            choice = np.flatnonzero(possible[block])
            self._mat_of[block] = choice[rng.integers(len(choice))] if len(choice) else 0
        self.aims = np.full((len(self.things), 2), -1, np.int64)
        for i in (0, *(i for i in range(1, blocks) if possible[i].any())):
            self.aims[i] = i, BLOCKS + self._mat_of[i]
        for goal in np.flatnonzero(possible[0]):
            if goal:  # the first is thing 0's
                self.aims[BLOCKS + goal] = 0, BLOCKS + goal
        # Control steps in a row at rest there, now and at most.
        self._placed, self._stayed = (np.zeros((BLOCKS, MATS), np.int64) for _ in range(2))
        return self.words(0, phrasing, rng), 0

    def note(self) -> None:
        super().note()
        props = self.table.props
        blocks, mats = props.bodies, props.fixtures
        inside = (np.abs(blocks[:, None, :2] - mats[None, :, :2]) < MAT_HALF).all(-1) & (blocks[:, 2] > 0)[:, None]
        self._placed = np.where(inside & (props.speeds < RESTING)[:, None], self._placed + 1, 0)
        self._stayed = np.maximum(self._stayed, self._placed)

    def success(self) -> bool:
        return self.judge(0)

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if thing `index` was meant: a block, to go onto a mat of its own, or a
        mat, for the named block.
        """
        return bool(self._stayed[self._meant(index)] >= REST)

    def counterfactual(self, phrasing: Any, rng: np.random.Generator) -> tuple[str, int]:
        """Words for another block, or for another mat: where the scene has any, such that can be done just as well and
        are not kept for the unseen combination.
        """
        others = [int(i) for i in np.flatnonzero(self.aims[:, 0] >= 0) if i]
        others = others or [int(i) for i in np.flatnonzero(self.present()[:BLOCKS]) if i]
        index = others[rng.integers(len(others))]
        block, mat = self._meant(index)
        self.aims[index] = block, BLOCKS + mat
        return self.words(index, phrasing, rng), index

    def reward_terms(self) -> dict[str, float]:
        """The parts of a step's reward."""
        block, mat = self.table.props.bodies[0], self.table.props.fixtures[0]
        hand, (begin, way) = self.table.arm.position, behind(block[:2], mat[:2])
        whole, left = (float(np.linalg.norm(each[:2] - mat[:2])) for each in (self.start[0], block))
        # High while to the side: straight to where it pushes from, the block itself would often be in the way.
        aside = from_line(hand[:2], begin, block[:2] - TOUCH * way)
        height = LOW + (ABOVE - LOW) * min(1.0, max(0.0, aside - LINE) / (2 * LINE))
        return {
            "approach": 0.5 * near(float(np.hypot(aside, hand[2] - height)), 0.2),
            "progress": 4 * max(0.0, 1 - left / whole),
            "success": self.success() * rest(4.5, self.horizon - self.step_count),
        }

    @property
    def target_name(self) -> str:
        return f"{self.colours[0]} cube (to the {self.colours[BLOCKS]} mat)"

    def diagnosis(self) -> str:
        """Why the episode failed, in a few words."""
        far = self.moved()
        if self._stayed[0, 1:].max() >= REST:
            return "wrong mat"
        if self.table.props.bodies[0, 2] < FALLEN:
            return "pushed off the table"
        if far[1:].max() > MOVED and far[0] < MOVED:
            return "wrong block"
        if not self.touched[0]:
            return "never touched"
        return "stopped short" if far[0] > MOVED else "hardly moved"

    def _possible(self, blocks: int, mats: int) -> np.ndarray:
        """Which of the blocks can be pushed onto which of the mats along a free line, in words that training has,
        (BLOCKS, MATS) bool.
        """
        where, onto = self.table.props.bodies[:blocks, :2], self.table.props.fixtures[:mats, :2]
        found = np.zeros((BLOCKS, MATS), np.bool_)
        for i, j in product(range(blocks), range(mats)):
            trained = (self.colours[i], self.colours[BLOCKS + j]) not in HELD_OUT_PAIRS
            found[i, j] = trained and free(where[i], onto[j], np.delete(where, i, axis=0))
        return found

    def _meant(self, index: int) -> tuple[int, int]:
        """Block and mat."""
        return (index, int(self._mat_of[index])) if index < BLOCKS else (0, index - BLOCKS)

    def words(self, index: int, phrasing: Any, rng: np.random.Generator) -> str:
        meant = self.meaning(index)
        words = BLOCK_WORDS[rng.integers(len(BLOCK_WORDS))], MAT_WORDS[rng.integers(len(MAT_WORDS))]
        return TEMPLATES.pick(phrasing, rng).format(
            block=f"{meant['block']} {words[0]}", mat=f"{meant['mat']} {words[1]}"
        )

    def meaning(self, index: int) -> dict[str, str]:
        block, mat = self._meant(index)
        return {"block": str(self.colours[block]), "mat": str(self.colours[BLOCKS + mat])}


def _colours(rng: np.random.Generator, options: Mapping[str, Any]) -> list[str | None]:
    """Colours of this scene's blocks and mats, None for one that is not there; the first of each is meant."""
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
    colours: list[str | None] = []
    for first, most in zip(pair, (BLOCKS, MATS), strict=True):
        others = rng.permutation([name for name in names if name != first])
        count = int(rng.integers(most - 1, most + 1))
        colours += [first, *map(str, others[: count - 1]), *[None] * (most - count)]
    return colours


def _places(rng: np.random.Generator, blocks: int, mats: int) -> np.ndarray:
    """Where n blocks and m mats are, `(BLOCKS + MATS, 2)` metres, with room for pushing the first block onto the first
    mat along a straight line.
    """
    while True:
        where_mats: list[np.ndarray] = []
        where: list[np.ndarray] = []
        for _ in range(TRIES):  # one after the other, until all have found a place
            spot = rng.uniform(*REGION)
            if len(where_mats) < mats:
                if nearest(spot, where_mats) > APART["mats"]:
                    where_mats.append(spot)
                continue
            if nearest(spot, where_mats) < FAR_FROM_MATS or nearest(spot, where) < APART["blocks"]:
                continue
            trial = [*where, spot]
            if not free(trial[0], where_mats[0], trial[1:]):
                continue
            where = trial
            if len(where) == blocks:
                # At least one other thing can be told.
                pairs = product(range(blocks), range(mats))
                others = sum(free(where[i], where_mats[j], [*where[:i], *where[i + 1 :]]) for i, j in pairs) - 1
                if others < ALTERNATIVES:
                    break
                places = np.zeros((BLOCKS + MATS, 2))
                places[:blocks], places[BLOCKS : BLOCKS + mats] = where, where_mats
                return places


def free(block: np.ndarray, mat: np.ndarray, others: Sequence[np.ndarray] | np.ndarray) -> bool:
    """Whether a block can be pushed onto a mat along a straight line that no other one is near, all (2,) metres."""
    begin, _ = behind(block, mat)
    if (begin < WORKSPACE[0, :2] + MARGIN).any() or (begin > WORKSPACE[1, :2] - MARGIN).any():
        return False
    return all(from_line(np.asarray(other), begin, mat) > CLEAR for other in others)


def read(text: str) -> dict[str, str]:
    """Reset options that put what a free text names into the scene.

    Raises:
        ValueError: it does not name one block and one mat by their colours.
    """
    tokens = words_of(text).split()
    taken = {"off", "out", "from", "away"} & set(tokens)
    found: dict[str, str] = {}
    for kind, nouns in (("block", BLOCK_WORDS), ("mat", MAT_WORDS)):
        named = {before for before, noun in pairwise(tokens) if noun in nouns and before in COLOURS}
        if len(named) != 1 or sum(token in COLOURS for token in tokens) != 2 or taken:
            hint = near_miss(tokens, [*COLOURS, *nouns])
            raise ValueError(
                f"instruction {text!r} must name one {kind} by its colour{hint}, as in 'push the red cube onto the "
                f"green mat'; colours are {', '.join(COLOURS)}"
            )
        found[kind] = named.pop()
    return found


# The expert: phases that the state alone decides.

BEHIND = 0.066  # distance of the hand from the block's middle where it comes down, metres
TOUCH = 0.035  # where it pushes, metres
ABOVE, LOW = 0.105, 0.028  # height of the pinch point over the blocks, and beside one, metres
LINE = 0.02  # how far the hand may be beside the line through block and mat, metres
DONE = 0.025  # of the block's middle from the mat's: pushed far enough, metres
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
    body, goal = aim_of(known)
    hand, block, mat = known["hand"], known["bodies"][body], known["fixtures"][goal - BLOCKS]
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
    return limited(velocity / MAX_SPEED[:3])
