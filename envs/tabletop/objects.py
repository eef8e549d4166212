"""What stands on the table: colours, shapes and sizes, the words for them, and the combinations kept for testing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

Combinations = Literal["train", "held_out", "all"]
COMBINATIONS: tuple[Combinations, ...] = ("train", "held_out", "all")

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.08, 0.08),
    "green": (0.10, 0.62, 0.16),
    "blue": (0.10, 0.22, 0.85),
    "yellow": (0.95, 0.86, 0.10),
    "purple": (0.52, 0.12, 0.72),
    "orange": (1.00, 0.47, 0.02),
}
SHAPES = ("ball", "cube", "cross", "wedge")
SIZES = ("small", "large")
SLOTS = 4  # objects that a scene can hold

# Every word an instruction may use for a shape; the first is the canonical name.
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "sphere"),
    "cube": ("cube", "block"),
    "cross": ("cross", "plus"),
    "wedge": ("wedge", "triangle"),
}

# Half extents in metres. A small object is still about 8 pixels across in the default 64-pixel picture.
RADIUS = {"small": 0.036, "large": 0.046}
HALF_HEIGHT = {"ball": 1.0, "cube": 0.92, "cross": 0.75, "wedge": 0.75}  # as a share of RADIUS
FOOTPRINT = {"ball": 1.0, "cube": 1.30, "cross": 1.13, "wedge": 1.22}  # radius of the circle around it, same unit

COLOUR_JITTER = 0.04  # uniform, per channel
MAX_YAW = np.deg2rad(25.0)

# Never the target, nor anywhere in the scene, in training: the "unseen combination" control uses these alone.
HELD_OUT_COMBINATIONS: frozenset[tuple[str, str]] = frozenset(
    {("red", "cross"), ("green", "ball"), ("blue", "wedge"), ("yellow", "cube")}
)


@dataclass(frozen=True, kw_only=True)
class TableObject:
    """One object: its words, and its look. `yaw` in radians, `rgb` in [0, 1]."""

    colour: str
    shape: str
    size: str
    yaw: float = 0.0
    rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def half_height(self) -> float:
        """Height of the object's centre above the table, metres."""
        return RADIUS[self.size] * HALF_HEIGHT[self.shape]

    @property
    def footprint(self) -> float:
        """Radius of the circle that holds the object seen from above, metres."""
        return RADIUS[self.size] * FOOTPRINT[self.shape]


def sample_object(rng: np.random.Generator, colour: str, shape: str, size: str | None = None) -> TableObject:
    """An object with a random yaw, a slightly random colour and, unless given, a random size."""
    jitter = rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3)
    rgb = np.clip(np.array(COLOURS[colour]) + jitter, 0.0, 1.0)
    return TableObject(
        colour=colour,
        shape=shape,
        size=size or SIZES[rng.integers(len(SIZES))],
        yaw=float(rng.uniform(-MAX_YAW, MAX_YAW)),
        rgb=(float(rgb[0]), float(rgb[1]), float(rgb[2])),
    )


def crossed_objects(
    rng: np.random.Generator, combinations: Combinations, target: tuple[str, str] | None = None
) -> list[TableObject]:
    """Two colours times two shapes, target first: neither its colour nor its shape alone singles it out.

    With `train` all four are training combinations; with `held_out` the target is a held-out one (the others are
    whatever completes the crossing); `all` allows everything. `target` (colour, shape) fixes the target.
    """
    squares = []
    for colour, shape in product(COLOURS, SHAPES):
        if target is not None and (colour, shape) != target:
            continue
        if target is None and combinations == "held_out" and (colour, shape) not in HELD_OUT_COMBINATIONS:
            continue
        for other_colour, other_shape in product(COLOURS, SHAPES):
            if other_colour == colour or other_shape == shape:
                continue
            square = [(colour, shape), (colour, other_shape), (other_colour, shape), (other_colour, other_shape)]
            checked = square[1:] if target is not None else square
            if combinations == "train" and HELD_OUT_COMBINATIONS & set(checked):
                continue
            squares.append(square)
    square = squares[rng.integers(len(squares))]
    return [sample_object(rng, colour, shape) for colour, shape in square]
