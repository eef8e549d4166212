"""Offscreen pictures and visible boxes from one scene update.

The colour and the segmentation pass share a scene, and the segment-to-object table is made once an episode, which
makes boxes cost one further draw and no Python loop over pixels.
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs.gl import current_renderer
from envs.scene import SLOTS, slot_geoms

MIN_VISIBLE_PIXELS = 4  # fewer visible pixels than this count as not visible


class Renderer:
    """Draws square pictures of one simulation. Owns a GL context: create it in the process that uses it, close it."""

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        self._model, self.size = model, size
        self._context = mujoco.GLContext(size, size)
        self._context.make_current()
        self._mjr = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_50))
        mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), self._mjr)
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            self._scene.flags[int(flag)] = 0
        self._option = mujoco.MjvOption()
        self._option.geomgroup[5] = 0
        self._option.sitegroup[:] = 0
        self._perturb = mujoco.MjvPerturb()
        self._cameras: dict[str, mujoco.MjvCamera] = {}
        self._pixels = np.zeros((size, size, 3), dtype=np.uint8)
        self._slot_of_geom = np.full(model.ngeom, SLOTS, dtype=np.int64)
        for slot in range(SLOTS):
            self._slot_of_geom[slot_geoms(model, slot)] = slot
        self._slot_of_segment: np.ndarray | None = None
        self._closed = False

    def forget_episode(self) -> None:
        """Call when objects were shown or hidden: segments are numbered afresh."""
        self._slot_of_segment = None

    def draw(self, data: mujoco.MjData, camera: str, *, shadows: bool = False) -> np.ndarray:
        """The picture of `camera`, (size, size, 3) uint8, top row first."""
        self._context.make_current()
        self._scene.flags[int(mujoco.mjtRndFlag.mjRND_SHADOW)] = int(shadows)
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._option,
            self._perturb,
            self._camera(camera),
            int(mujoco.mjtCatBit.mjCAT_ALL),
            self._scene,
        )
        mujoco.mjr_render(self._rect, self._scene, self._mjr)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._mjr)
        return self._pixels[::-1].copy()

    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Visible boxes of the objects in the picture drawn last.

        Returns boxes `(SLOTS, 4)` float32 as (cx, cy, w, h) in [0, 1], zeros where nothing is visible, and the
        number of visible pixels `(SLOTS,)`.
        """
        self._context.make_current()
        self._scene.flags[int(mujoco.mjtRndFlag.mjRND_SEGMENT)] = 1
        self._scene.flags[int(mujoco.mjtRndFlag.mjRND_IDCOLOR)] = 1
        mujoco.mjr_render(self._rect, self._scene, self._mjr)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._mjr)
        self._scene.flags[int(mujoco.mjtRndFlag.mjRND_SEGMENT)] = 0
        self._scene.flags[int(mujoco.mjtRndFlag.mjRND_IDCOLOR)] = 0
        if self._slot_of_segment is None:
            self._slot_of_segment = self._segments()
        # Fewer than 255 geoms are drawn, so the first colour channel alone numbers the segment.
        slots = self._slot_of_segment[self._pixels[::-1, :, 0]]
        mask = slots[None] == np.arange(SLOTS)[:, None, None]
        counts = mask.sum(axis=(1, 2))
        boxes = np.zeros((SLOTS, 4), dtype=np.float32)
        for slot in np.flatnonzero(counts >= MIN_VISIBLE_PIXELS):
            rows, columns = np.flatnonzero(mask[slot].any(axis=1)), np.flatnonzero(mask[slot].any(axis=0))
            top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            boxes[slot] = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        return boxes / self.size, counts

    def gl_name(self) -> str:
        """The OpenGL renderer that draws, for example "llvmpipe (LLVM 15.0.6, 256 bits)"."""
        self._context.make_current()
        return current_renderer()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._context.make_current()
            self._mjr.free()
            self._context.free()

    def _segments(self) -> np.ndarray:
        table = np.full(256, SLOTS, dtype=np.int64)
        for i in range(self._scene.ngeom):
            geom = self._scene.geoms[i]
            if int(geom.objtype) == int(mujoco.mjtObj.mjOBJ_GEOM) and 0 <= geom.segid < 254:
                table[geom.segid + 1] = self._slot_of_geom[geom.objid]
        return table

    def _camera(self, name: str) -> mujoco.MjvCamera:
        if name not in self._cameras:
            camera = mujoco.MjvCamera()
            camera.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)
            camera.fixedcamid = self._model.camera(name).id
            self._cameras[name] = camera
        return self._cameras[name]
