"""Offscreen pictures and visible boxes.

Boxes cost one further draw, of segments, and no Python loop over pixels. The segments leave out the backdrop, such as
floor and table: it is half of what a picture costs to draw, and never in front of an object.
"""

from __future__ import annotations

import atexit
import weakref
from typing import Any

import mujoco
import numpy as np

from envs.gl import current_renderer
from envs.gl_context import GLContext
from envs.tabletop.objects import SLOTS
from envs.tabletop.scene import BACKDROP_GROUP, HIDDEN_GROUP, slot_geoms

MIN_VISIBLE_PIXELS = 4  # fewer visible pixels than this count as not visible

_SHADOW = int(mujoco.mjtRndFlag.mjRND_SHADOW)
_SEGMENTATION = (int(mujoco.mjtRndFlag.mjRND_SEGMENT), int(mujoco.mjtRndFlag.mjRND_IDCOLOR))
_EVERYTHING = int(mujoco.mjtCatBit.mjCAT_ALL)
_SLOT_BITS = [1 << slot for slot in range(SLOTS)]
_HAS_BIT = [bytes(bits & bit > 0 for bits in range(256)) for bit in _SLOT_BITS]  # tables for bytes.translate


class Renderer:
    """Draws square pictures of one simulation, in any thread, one at a time.

    Owns a GL context: create it in the process that uses it, close it.
    """

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        self._mjr: mujoco.MjrContext | None = None
        self._model, self.size = model, size
        self._context = GLContext(size)
        with self._context:
            self._mjr = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_50))
            mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), self._mjr)
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._scene, self._option = mujoco.MjvScene(model, maxgeom=200), mujoco.MjvOption()
        self._segments, self._segments_option = mujoco.MjvScene(model, maxgeom=200), mujoco.MjvOption()
        for scene, option in ((self._scene, self._option), (self._segments, self._segments_option)):
            for flag in (_SHADOW, int(mujoco.mjtRndFlag.mjRND_REFLECTION), int(mujoco.mjtRndFlag.mjRND_HAZE)):
                scene.flags[flag] = 0
            option.geomgroup[HIDDEN_GROUP] = 0
            option.sitegroup[:] = 0
        for flag in _SEGMENTATION:
            self._segments.flags[flag] = 1
        self._segments_option.geomgroup[BACKDROP_GROUP] = 0
        self._perturb = mujoco.MjvPerturb()
        self._cameras: dict[str, mujoco.MjvCamera] = {}
        self._pixels = np.zeros((size, size, 3), dtype=np.uint8)
        self._bit_of_geom = {geom: bit for slot, bit in enumerate(_SLOT_BITS) for geom in slot_geoms(model, slot)}
        self._bit_of_segment: bytes | None = None
        _OPEN.add(self)
        # Moved to the end of the list, which runs first: before the display goes away.
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    def forget_episode(self) -> None:
        """Call when objects were shown or hidden: segments are numbered afresh."""
        self._bit_of_segment = None

    def draw(self, data: mujoco.MjData, camera: str, *, shadows: bool = False) -> np.ndarray:
        """The picture of `camera`, (size, size, 3) uint8, top row first."""
        with self._context:
            return self._draw(data, camera, shadows)

    def draw_with_boxes(self, data: mujoco.MjData, camera: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The picture, and the visible boxes of the objects in it.

        Boxes are `(SLOTS, 4)` float32 as (cx, cy, w, h) in [0, 1], zeros where nothing is visible; with them comes the
        number of visible pixels `(SLOTS,)`.
        """
        with self._context:
            drawn = self._draw(data, camera, False)
            self._read(data, camera, self._segments, self._segments_option)
            segments = self._pixels[:, :, 0].tobytes()
            if self._bit_of_segment is None:
                self._bit_of_segment = self._number_segments()
        # Fewer than 255 geoms are drawn, so the first colour channel alone numbers the segment. Each pixel becomes its
        # slot's bit, and rows and columns of the picture sets of bits. Methods of bytes do in microseconds what
        # takes twenty calls of NumPy.
        pixels = segments.translate(self._bit_of_segment)
        picture = np.frombuffer(pixels, np.uint8).reshape(self.size, self.size)
        columns = np.bitwise_or.reduce(picture, axis=0).tobytes()
        rows = np.bitwise_or.reduce(picture, axis=1).tobytes()  # bottom row first
        counts, boxes = np.zeros(SLOTS, dtype=np.int64), np.zeros((SLOTS, 4), dtype=np.float32)
        for slot, bit in enumerate(_SLOT_BITS):
            counts[slot] = count = pixels.count(bit)
            if count < MIN_VISIBLE_PIXELS:
                continue
            across, up = columns.translate(_HAS_BIT[slot]), rows.translate(_HAS_BIT[slot])
            left, right = across.find(1), across.rfind(1) + 1
            top, bottom = self.size - up.rfind(1) - 1, self.size - up.find(1)
            boxes[slot] = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        return drawn, boxes / self.size, counts

    def gl_name(self) -> str:
        """The OpenGL renderer that draws, for example "llvmpipe (LLVM 15.0.6, 256 bits)"."""
        with self._context:
            return current_renderer()

    def close(self) -> None:
        """Free what was allocated, from any thread. A second time does nothing, and one that failed can be repeated."""
        if self._mjr is not None:
            # With its own context current: OpenGL would free another context's objects of the same numbers.
            with self._context:
                self._mjr.free()
                self._mjr = None
        self._context.free()

    def __reduce__(self) -> Any:
        raise TypeError("a Renderer cannot be copied or sent to another process; make one there, of the same model")

    def __del__(self) -> None:
        if hasattr(self, "_context"):
            self.close()

    def _draw(self, data: mujoco.MjData, camera: str, shadows: bool) -> np.ndarray:
        self._scene.flags[_SHADOW] = int(shadows)
        self._read(data, camera, self._scene, self._option)
        return self._pixels[::-1].copy()

    def _read(self, data: mujoco.MjData, camera: str, scene: mujoco.MjvScene, option: mujoco.MjvOption) -> None:
        """Draw what `scene` and `option` say into `_pixels`, bottom row first."""
        mujoco.mjv_updateScene(self._model, data, option, self._perturb, self._camera(camera), _EVERYTHING, scene)
        mujoco.mjr_render(self._rect, scene, self._mjr)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._mjr)

    def _number_segments(self) -> bytes:
        """The bit of the slot that each of 256 segments belongs to; 0 for everything else."""
        table = bytearray(256)
        for i in range(self._segments.ngeom):
            geom = self._segments.geoms[i]
            if int(geom.objtype) == int(mujoco.mjtObj.mjOBJ_GEOM) and 0 <= geom.segid < 254:
                table[geom.segid + 1] = self._bit_of_geom.get(int(geom.objid), 0)
        return bytes(table)

    def _camera(self, name: str) -> mujoco.MjvCamera:
        if name not in self._cameras:
            camera = mujoco.MjvCamera()
            camera.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)
            camera.fixedcamid = self._model.camera(name).id
            self._cameras[name] = camera
        return self._cameras[name]


_OPEN: weakref.WeakSet[Renderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_OPEN):
        renderer.close()
