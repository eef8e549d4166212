"""Between the units of somebody else's actions and [-1, 1], in which ours are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.lerobot import LARGEST

FIELD = "action_scale"  # of a dataset's header


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The values that became -1 and 1, by dimension of the action; None where actions were left as they are."""

    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @staticmethod
    def from_header(header: Mapping[str, Any], actions: int) -> Scale:
        """The scale that a dataset's header tells of.

        Raises:
            ValueError: it is none, or not one of so many actions.
        """
        given = header.get(FIELD)
        if not given:
            return Scale()
        try:
            low, high = (tuple(map(float, given[name])) for name in ("low", "high"))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{FIELD} is no scale ({error!r})") from None
        bounded = len(low) == len(high) == actions and max(map(abs, (*low, *high))) <= LARGEST
        if not bounded or not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"{FIELD} goes from {low} to {high}, expected {actions} numbers below as many others")
        return Scale(low=low, high=high)

    @staticmethod
    def spanning(low: np.ndarray, high: np.ndarray) -> Scale:
        """The scale to values from low to high, (A,); none where they lie in [-1, 1], as they do where somebody has
        scaled them before.
        """
        if (low >= -1).all() and (high <= 1).all():
            return Scale()
        alone = low == high  # a value that never changes becomes 0
        return Scale(low=tuple((low - alone).tolist()), high=tuple((high + alone).tolist()))

    @property
    def header(self) -> dict[str, Any]:
        """What a dataset's header says of it."""
        return {} if self.low is None or self.high is None else {FIELD: {"low": [*self.low], "high": [*self.high]}}

    def to_unit(self, action: np.ndarray) -> np.ndarray:
        """To [-1, 1], (n, A) float32."""
        if self.low is None or self.high is None:
            return action.astype(np.float32)
        middle, half = self._middle_and_half()
        return np.clip((action.astype(np.float64) - middle) / half, -1, 1).astype(np.float32)

    def to_source(self, unit: np.ndarray) -> np.ndarray:
        """Back from [-1, 1], (n, A) float32."""
        if self.low is None or self.high is None:
            return np.asarray(unit, np.float32)
        middle, half = self._middle_and_half()
        source: np.ndarray = (middle + half * unit.astype(np.float64)).astype(np.float32)
        return source

    def _middle_and_half(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array(self.low), np.array(self.high)
        return (high + low) / 2, (high - low) / 2
