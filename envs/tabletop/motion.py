"""Paths of moving objects on the table: sampled once per episode, as arrays over time.

A path is `(K, 2)` metres, one row a simulation tick: a curve, evaluated at the distance travelled by every tick.
Kinds: circle, ellipse, line (bouncing between its ends), lissajous, stop_and_go, still. Directions are as seen from
above, which is also what the front camera sees.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

REGION = np.array([[-0.18, -0.19], [0.18, 0.19]])  # where object centres may be: (x, y) low and high, metres
CLEARANCE = 0.006  # gap kept between two objects' footprints, metres
START_GAP = 0.04  # more gap at the start where motions must be interchangeable, or hardly any exchange fits, metres
PATH_KINDS = ("circle", "ellipse", "line", "lissajous", "stop_and_go")

Curve = Callable[[np.ndarray], np.ndarray]  # distances travelled (k,) to positions (k, 2), metres
PathSampler = Callable[[np.random.Generator], tuple[Curve, np.ndarray]]  # a curve, and the distances at all K ticks


def still(travelled: np.ndarray, *, position: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(position, dtype=float)[None], len(travelled), axis=0)


def ellipse(
    travelled: np.ndarray, *, centre: np.ndarray, radii: tuple[float, float], phase: float, turn: int
) -> np.ndarray:
    """An ellipse, or a circle for equal radii; `turn` +1 runs counter-clockwise, -1 clockwise.

    `travelled` is the distance covered in metres, exact for a circle and true on average otherwise.
    """
    angle = phase + turn * travelled / np.sqrt((radii[0] ** 2 + radii[1] ** 2) / 2)
    return _points(centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle))


def lissajous(travelled: np.ndarray, *, centre: np.ndarray, radii: tuple[float, float], phase: float) -> np.ndarray:
    """A figure with frequencies 1:2 along the two axes; `travelled` is the distance covered on average, metres."""
    angle = phase + travelled / np.sqrt((radii[0] ** 2 + 4 * radii[1] ** 2) / 2)
    return _points(centre[0] + radii[0] * np.sin(angle), centre[1] + radii[1] * np.sin(2 * angle))


def bounce(travelled: np.ndarray, *, centre: np.ndarray, half: np.ndarray, phase: float) -> np.ndarray:
    """Back and forth between `centre - half` and `centre + half`; `travelled` is the distance covered, metres."""
    length = 2 * float(np.linalg.norm(half))
    along = np.mod(travelled + phase * 2 * length, 2 * length)
    share = np.where(along < length, along, 2 * length - along) / length
    across = 2 * share - 1
    return _points(centre[0] + across * half[0], centre[1] + across * half[1])


def stop_and_go(
    times: np.ndarray, *, speed: float, go: float, stop: float, phase: float, ramp: float = 0.1
) -> np.ndarray:
    """Distance travelled by something that moves for `go` seconds, stands for `stop` seconds, and so on.

    Speed rises and falls linearly over `ramp` seconds.
    """
    clock = np.mod(times + phase * (go + stop), go + stop)
    rate = speed * np.clip(np.minimum(clock, go - clock) / ramp, 0.0, 1.0)
    travelled = np.zeros_like(times)
    np.cumsum(rate[1:] * np.diff(times), out=travelled[1:])
    return travelled


def go_between(times: np.ndarray, *, speed: float, start: float, end: float, ramp: float = 0.1) -> np.ndarray:
    """Distance travelled by something that moves between two times, in seconds, and stands before and after.

    Speed rises linearly over `ramp` seconds, unless it moves from the beginning, and falls likewise.
    """
    rising = np.ones_like(times) if start <= 0 else (times - start) / ramp
    rate = speed * np.clip(np.minimum(rising, (end - times) / ramp), 0.0, 1.0)
    travelled = np.zeros_like(times)
    np.cumsum(rate[1:] * np.diff(times), out=travelled[1:])
    return travelled


def sample_path(kind: str, rng: np.random.Generator, times: np.ndarray, speed: float) -> tuple[Curve, np.ndarray]:
    """A random curve of this kind inside REGION, and the distances travelled along it."""
    travelled = speed * times
    radii = rng.uniform(0.03, 0.08, 2)
    phase = rng.uniform(0, 2 * np.pi)
    turn = 2 * int(rng.integers(2)) - 1
    if kind == "circle":
        radii[1] = radii[0]
    if kind in ("circle", "ellipse"):
        centre = _centre(rng, radii)
        return partial(ellipse, centre=centre, radii=(radii[0], radii[1]), phase=phase, turn=turn), travelled
    if kind == "lissajous":
        return partial(lissajous, centre=_centre(rng, radii), radii=(radii[0], radii[1]), phase=phase), travelled
    angle = rng.uniform(0, 2 * np.pi)
    half = rng.uniform(0.06, 0.12) * np.array([np.cos(angle), np.sin(angle)])
    if kind == "stop_and_go":
        go, stop = rng.uniform(0.6, 1.2), rng.uniform(0.4, 0.8)
        travelled = stop_and_go(times, speed=speed, go=go, stop=stop, phase=rng.uniform())
    elif kind != "line":
        raise ValueError(f"path kind {kind!r} is unknown; choose one of {', '.join(PATH_KINDS)}")
    return partial(bounce, centre=_centre(rng, np.abs(half)), half=half, phase=rng.uniform()), travelled


def _centre(rng: np.random.Generator, margin: np.ndarray) -> np.ndarray:
    low, high = REGION[0] + margin, REGION[1] - margin
    # One number at a time: uniform() is slow to take arrays, and scenes draw hundreds of paths.
    return np.array([rng.uniform(min(low[axis], 0.0), max(high[axis], 0.0)) for axis in (0, 1)])


def _points(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    path = np.empty((len(x), 2))
    path[:, 0], path[:, 1] = x, y
    return path


def place_apart(
    rng: np.random.Generator, samplers: list[PathSampler], footprints: list[float], tries: int = 60
) -> np.ndarray | None:
    """Paths `(n, K, 2)`, one a sampler, whose objects never touch; None when `tries` tries each found none.

    Placed in random order, so that where an object starts says nothing about its index.
    """
    order = rng.permutation(len(samplers))
    placed: list[np.ndarray] = []
    for index in order:
        others, distances = (
            np.array(placed),
            np.array([footprints[index] + footprints[j] for j in order[: len(placed)]]),
        )
        for _ in range(tries):
            curve, travelled = samplers[index](rng)
            path = _fitting(curve, travelled, others, distances)
            if path is not None:
                placed.append(path)
                break
        else:
            return None
    return np.stack([placed[i] for i in np.argsort(order)])


def place_interchangeably(
    rng: np.random.Generator, samplers: list[PathSampler], footprint: float, tries: int = 25
) -> np.ndarray | None:
    """Paths `(n, K, 2)`, one a sampler, such that where objects start says nothing about which sampler moves which.

    For n given starts, every rotation of the samplers over them gets paths whose objects never touch and stay in
    REGION; which rotation is taken is drawn last, so that it is independent of the starts. (Placing each object where
    its own motion fits is not: whatever starts at the left edge is then hardly the one that moves left and right.)
    Curves are moved to the starts. None when no such paths were found in `tries` tries each.
    """
    n = len(samplers)
    starts = rng.uniform(REGION[0], REGION[1], (n, 2))
    nearest = min(np.linalg.norm(starts[i] - starts[j]) for i in range(n) for j in range(i))
    if nearest < 2 * footprint + CLEARANCE + START_GAP:
        return None
    rotations = []
    for turn in range(n):
        paths: list[np.ndarray] = []
        for index, sampler in enumerate(samplers):
            start, others = starts[(index + turn) % n], np.array(paths)
            for _ in range(tries):
                curve, travelled = sampler(rng)
                path = _fitting(curve, travelled, others, 2 * footprint, start)
                if path is not None:
                    paths.append(path)
                    break
            else:
                return None
        rotations.append(paths)
    return np.stack(rotations[rng.integers(n)])


def _fitting(
    curve: Curve,
    travelled: np.ndarray,
    others: np.ndarray,
    distances: np.ndarray | float,
    start: np.ndarray | None = None,
) -> np.ndarray | None:
    """The whole path `(K, 2)` if it stays `distances` `(m,)` and CLEARANCE away from `others` `(m, K, 2)`, else None.

    With `start` the curve is moved to begin there, and must stay in REGION. A few ticks are tried before the rest,
    because most paths do not fit.
    """
    shift = 0.0 if start is None else start - curve(travelled[:1])[0]
    for ticks in (slice(None, None, 20), slice(None)):
        path = curve(travelled[ticks]) + shift
        if start is not None and not ((path >= REGION[0]).all() and (path <= REGION[1]).all()):
            return None
        if len(others):
            gap = path - others[:, ticks]
            nearest = np.einsum("mkd,mkd->mk", gap, gap).min(axis=1)
            if not (nearest > (distances + CLEARANCE) ** 2).all():
                return None
    return path
