"""Statistics as LeRobot keeps them: min, max, mean, std, count and quantiles of every feature, of a whole dataset and
of each episode. Memory does not grow with the dataset: quantiles come from histograms.

n rows, d dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
BINS = 4096  # between the smallest and the largest value; a quantile is as exact as a bin is narrow


def describe(values: np.ndarray) -> dict[str, Any]:
    """The statistics of a vector's values, (n, d), exactly."""
    wide = values.astype(np.float64)
    found = {name: getattr(wide, name)(axis=0).tolist() for name in ("min", "max", "mean", "std")}
    quantiles = {_name(q): np.quantile(wide, q, axis=0).tolist() for q in QUANTILES}
    return found | {"count": [len(values)]} | quantiles


class Histogram:
    """The statistics of more values than memory holds.

    Args:
        low, high: (d,) the smallest and the largest of them.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low, self._high = low.astype(np.float64), high.astype(np.float64)
        self._counts = np.zeros((len(low), BINS), np.int64)
        self._sum, self._squares = np.zeros(len(low)), np.zeros(len(low))
        self._rows = 0

    def add(self, values: np.ndarray) -> None:
        """Count rows, (n, d)."""
        wide = values.astype(np.float64)
        span = np.where(self._high > self._low, self._high - self._low, 1.0)
        bins = np.clip((wide - self._low) / span * BINS, 0, BINS - 1).astype(np.int64)
        for dimension, counts in enumerate(self._counts):
            counts += np.bincount(bins[:, dimension], minlength=BINS)
        centred = wide - self._low  # so that little is lost where the values are large and alike
        self._sum += centred.sum(axis=0)
        self._squares += (centred**2).sum(axis=0)
        self._rows += len(values)

    def describe(self) -> dict[str, Any]:
        mean = self._sum / self._rows
        std = np.sqrt(np.maximum(self._squares / self._rows - mean**2, 0))
        found = {
            "min": self._low.tolist(),
            "max": self._high.tolist(),
            "mean": (mean + self._low).tolist(),
            "std": std.tolist(),
            "count": [self._rows],
        }
        for q in QUANTILES:
            places = [_quantile(counts, q) / BINS for counts in self._counts]
            found[_name(q)] = (self._low + (self._high - self._low) * places).tolist()
        return found


class PictureHistogram:
    """The statistics of pictures by colour, in [0, 1]: exact, for a byte has 256 values. LeRobot keeps one number a
    colour, as (3, 1, 1).
    """

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._pictures = 0

    def add(self, pictures: np.ndarray) -> None:
        """Count pictures, (n, H, W, 3) uint8."""
        for colour, counts in enumerate(self._counts):
            counts += np.bincount(pictures[..., colour].reshape(-1), minlength=256)
        self._pictures += len(pictures)

    def merge(self, other: PictureHistogram) -> None:
        self._counts += other._counts
        self._pictures += other._pictures

    def describe(self) -> dict[str, Any]:
        values = np.arange(256) / 255
        weights = self._counts / self._counts.sum(axis=1, keepdims=True)
        mean = weights @ values
        columns = {
            "min": [values[np.flatnonzero(counts)[0]] for counts in self._counts],
            "max": [values[np.flatnonzero(counts)[-1]] for counts in self._counts],
            "mean": mean,
            "std": np.sqrt(np.maximum(weights @ values**2 - mean**2, 0)),
        }
        for q in QUANTILES:
            columns[_name(q)] = [values[np.searchsorted(np.cumsum(c), q * c.sum())] for c in self._counts]
        found: dict[str, Any] = {name: [[[float(x)]] for x in column] for name, column in columns.items()}
        return found | {"count": [self._pictures]}


def _quantile(counts: np.ndarray, q: float) -> float:
    """Where in a histogram the share q of all lies below, in bins; within a bin they count as spread evenly."""
    below = np.cumsum(counts)
    wanted = q * below[-1]
    place = int(np.searchsorted(below, wanted, side="left"))
    before = below[place - 1] if place else 0
    return place + (wanted - before) / max(counts[place], 1)


def _name(q: float) -> str:
    return f"q{round(100 * q):02d}"
