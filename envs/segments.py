"""Things in a picture: what they are made of, and the boxes around what is seen of them."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from envs.cameras import find

MIN_VISIBLE_PIXELS = 4  # fewer visible pixels than this count as not visible

_GEOM, _SITE = int(mujoco.mjtObj.mjOBJ_GEOM), int(mujoco.mjtObj.mjOBJ_SITE)
_BITS = [1 << index for index in range(8)]
_HAS_BIT = [bytes(bits & bit > 0 for bits in range(256)) for bit in _BITS]  # tables for bytes.translate
_ONE_BYTE = 255  # geoms drawn, below which the first colour channel alone numbers the segment


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What one box is around: geoms, all geoms of bodies, and sites, by name or number.

    `subtree` takes all that hangs on the bodies along. Sites count only where they are drawn.
    """

    geoms: tuple[str | int, ...] = ()
    bodies: tuple[str | int, ...] = ()
    sites: tuple[str | int, ...] = ()
    subtree: bool = False

    def parts(self, model: mujoco.MjModel) -> set[tuple[int, int]]:
        """(kind, number) of every geom and site of a model that belongs to it.

        Raises:
            ValueError: the model has no such geom, body or site, or they are none at all.
        """
        bodies = {find(model, "body", name) for name in self.bodies}
        if self.subtree:
            for body in range(1, model.nbody):  # parents come before their children
                if int(model.body_parentid[body]) in bodies:
                    bodies.add(body)
        geoms = {find(model, "geom", name) for name in self.geoms}
        geoms |= {geom for geom in range(model.ngeom) if int(model.geom_bodyid[geom]) in bodies}
        found = {(_GEOM, geom) for geom in geoms} | {(_SITE, find(model, "site", name)) for name in self.sites}
        if not found:
            raise ValueError(f"{self} is nothing that could be seen; name geoms, bodies with geoms, or sites")
        return found


class Segments:
    """Finds the boxes of things in a picture of segments.

    Each pixel becomes a set of things, one bit each, and rows and columns of the picture sets, too. Methods of bytes do
    in microseconds what takes twenty calls of NumPy.

    Args:
        things: of each of O things, the (kind, number) of its parts.
        size: side of the pictures in pixels.
    """

    def __init__(self, things: list[set[tuple[int, int]]], size: int) -> None:
        self._size = size
        self._count = len(things)
        self._eights = [things[first : first + len(_BITS)] for first in range(0, len(things), len(_BITS))]
        self._overlap = len(set().union(*things)) < sum(map(len, things))
        self._tables: list[np.ndarray] = []
        self._geoms = -1

    def forget(self) -> None:
        """Number the segments afresh, because others are drawn."""
        self._geoms = -1

    def boxes(self, pixels: np.ndarray, scene: mujoco.MjvScene) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (O, 4) in pixels and numbers of pixels (O,), of pixels (size, size, 3) with the bottom row first."""
        if scene.ngeom != self._geoms:
            self._tables, self._geoms = [_table(scene, eight) for eight in self._eights], scene.ngeom
        counts, boxes = np.zeros(self._count, dtype=np.int64), np.zeros((self._count, 4), dtype=np.float32)
        if self._geoms < _ONE_BYTE:
            first = pixels[:, :, 0].tobytes()
            sets = [first.translate(table.tobytes()) for table in self._tables]
        else:
            numbers = pixels.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
            sets = [table[numbers].tobytes() for table in self._tables]
        for eight, held in enumerate(sets):
            picture = np.frombuffer(held, np.uint8).reshape(self._size, self._size)
            columns = np.bitwise_or.reduce(picture, axis=0).tobytes()
            rows = np.bitwise_or.reduce(picture, axis=1).tobytes()
            for bit in range(len(self._eights[eight])):
                thing, has = len(_BITS) * eight + bit, _HAS_BIT[bit]
                counts[thing] = count = held.translate(has).count(1) if self._overlap else held.count(_BITS[bit])
                if count < MIN_VISIBLE_PIXELS:
                    continue
                across, up = columns.translate(has), rows.translate(has)
                left, right = across.find(1), across.rfind(1) + 1
                top, bottom = self._size - up.rfind(1) - 1, self._size - up.find(1)
                boxes[thing] = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        return boxes, counts


def _table(scene: mujoco.MjvScene, things: list[set[tuple[int, int]]]) -> np.ndarray:
    """The bits of the things that each segment belongs to, uint8; 0 for everything else, and for no segment at all."""
    bits: dict[tuple[int, int], int] = {}
    for bit, thing in zip(_BITS, things, strict=False):
        for part in thing:
            bits[part] = bits.get(part, 0) | bit
    table = np.zeros(max(256, scene.ngeom + 1), np.uint8)
    for geom in scene.geoms[: scene.ngeom]:
        if geom.segid >= 0:
            table[geom.segid + 1] = bits.get((int(geom.objtype), int(geom.objid)), 0)
    return table
