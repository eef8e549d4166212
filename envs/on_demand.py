"""Pictures that are drawn when somebody looks, and not at all if nobody does.

A policy that decides at every fourth control step looks at every fourth picture, and drawing is most of the time that
an episode takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Drawn = tuple[np.ndarray, ...]
PICTURE, BOXES, VISIBLE = range(3)  # parts of what is drawn


class Moment:
    """What an environment's cameras see now.

    Args:
        cameras: their names.
        draw: draws one of them: a picture (size, size, 3) and, where there are labels, boxes (O, 4) and visible (O,).
    """

    def __init__(self, cameras: Sequence[str], draw: Callable[[str], Drawn]) -> None:
        self._cameras, self._draw = tuple(cameras), draw
        self._drawn: dict[str, Drawn] = {}
        self._over = False

    def end(self) -> None:
        """The simulation goes on: what was not drawn cannot be any more."""
        self._over = True

    def __getitem__(self, camera: str) -> Drawn:
        if camera not in self._cameras:
            raise KeyError(camera)
        if camera not in self._drawn:
            if self._over:
                raise RuntimeError(
                    f"the picture of {camera!r} was not drawn while it could be; look before the next step"
                )
            self._drawn[camera] = self._draw(camera)
        return self._drawn[camera]

    def part(self, part: int) -> OnDemand:
        """One part of what is drawn, by camera."""
        return OnDemand(self, self._cameras, part)


class OnDemand(Mapping[str, Any]):
    """Camera → picture, boxes or visibility, drawn at the first look."""

    def __init__(self, moment: Moment, cameras: tuple[str, ...], part: int) -> None:
        self._moment, self._cameras, self._part = moment, cameras, part

    def __getitem__(self, camera: str) -> np.ndarray:
        return self._moment[camera][self._part]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)
