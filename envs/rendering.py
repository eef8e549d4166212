"""Offscreen pictures of any MuJoCo model, and the visible boxes of things in them.

Boxes cost one further draw, of segments, and no Python loop over pixels. The segments may leave out a backdrop, such as
floor and table: it is half of what a picture costs to draw, and never in front of an object.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np

from envs.cameras import CameraSpec, View
from envs.gl import GLContextError, current_renderer
from envs.gl_context import GLContext
from envs.segments import MIN_VISIBLE_PIXELS, Segments, Thing

SHOWN_GROUPS = (0, 1, 2)  # of geoms and sites: those that MuJoCo shows if nobody says otherwise

_COSTLY = tuple(int(getattr(mujoco.mjtRndFlag, f"mjRND_{name}")) for name in ("SHADOW", "REFLECTION", "HAZE"))
_SEGMENTATION = (int(mujoco.mjtRndFlag.mjRND_SEGMENT), int(mujoco.mjtRndFlag.mjRND_IDCOLOR))
_EVERYTHING = int(mujoco.mjtCatBit.mjCAT_ALL)
_FACETS = (16, 10)  # around and along a curved body, at most, unless the model's own are asked for
_MAKING = threading.Lock()


class Renderer:
    """Draws square pictures of one simulation, in any thread, one at a time.

    Owns a GL context: create it in the process that uses it, close it.

    Args:
        model: any model. It may change while it is drawn; see `forget_episode`.
        size: side of the pictures in pixels.
        things: O things to box; any number, best up to 8, and they may overlap.
        cameras: cameras of one's own by name, beside the model's.
        upside_down: names of cameras whose pictures are turned by 180 degrees.
        geom_groups, site_groups: groups that are drawn.
        backdrop_groups: of the geom groups, those that are never in front of a thing: boxes are drawn without them.
        stock: draw shadows, reflections, haze, smooth edges and as many facets as the model asks for. Without, a
            picture of a foreign model takes a tenth of the time.

    Raises:
        ValueError: something is named that the model does not have, or the size is no number of pixels.
        GLContextError: nothing can be drawn into.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        size: int,
        *,
        things: Sequence[Thing] = (),
        cameras: Mapping[str, CameraSpec] | None = None,
        upside_down: Collection[str] = (),
        geom_groups: Collection[int] = SHOWN_GROUPS,
        site_groups: Collection[int] = SHOWN_GROUPS,
        backdrop_groups: Collection[int] = (),
        stock: bool = False,
    ) -> None:
        if size < 1:
            raise ValueError(f"size {size} must be at least 1 pixel")
        self._mjr: mujoco.MjrContext | None = None
        self._model, self.size, self._upside_down = model, size, frozenset(upside_down)
        self._views = {name: self._view(name, spec) for name, spec in (cameras or {}).items()}
        for name in upside_down:
            self._find_view(name)
        self._segments = Segments([thing.parts(model) for thing in things], size)
        self._things = len(things)
        self._scene, self._option = _scene(model, geom_groups, site_groups)
        shown = set(geom_groups) - set(backdrop_groups)
        self._segments_scene, self._segments_option = _scene(model, shown, site_groups)
        if not stock:
            for flag in _COSTLY:
                self._scene.flags[flag] = 0
        for flag in _COSTLY:
            self._segments_scene.flags[flag] = 0
        for flag in _SEGMENTATION:
            self._segments_scene.flags[flag] = 1
        self._rect, self._perturb = mujoco.MjrRect(0, 0, size, size), mujoco.MjvPerturb()
        self._pixels = np.zeros((size, size, 3), dtype=np.uint8)
        self._context = GLContext(size)
        with self._context, _buffers(model, size, stock):
            self._mjr = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_50))
            mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), self._mjr)
        if int(self._mjr.currentBuffer) != int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN):
            raise GLContextError(f"this OpenGL has no offscreen buffer of {size} pixels a side")
        _OPEN.add(self)
        # Moved to the end of the list, which runs first: before the display goes away.
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    def forget_episode(self) -> None:
        """Call when geoms or sites were shown or hidden: segments are numbered afresh."""
        self._segments.forget()

    def draw(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """The picture of `camera`, (size, size, 3) uint8, top row first.

        Raises:
            ValueError: there is no such camera.
            GLContextError: the renderer was closed, or its context cannot be used in this thread.
        """
        view = self._find_view(camera)
        with self._context:
            return self._draw(data, view)

    def draw_with_boxes(self, data: mujoco.MjData, camera: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The picture, and the visible boxes of the things in it; raises as `draw`.

        Boxes are `(O, 4)` float32 as (cx, cy, w, h) in [0, 1], zeros where nothing is visible; with them comes the
        number of visible pixels `(O,)` int64. Visible is what has at least `MIN_VISIBLE_PIXELS` of them.
        """
        view = self._find_view(camera)
        with self._context:
            drawn = self._draw(data, view)
            if not self._things:
                return drawn, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
            self._read(data, view, self._segments_scene, self._segments_option)
            boxes, counts = self._segments.boxes(self._pixels, self._segments_scene)
        if view.upside_down:
            seen = counts >= MIN_VISIBLE_PIXELS
            boxes[seen, :2] = self.size - boxes[seen, :2]
        return drawn, boxes / self.size, counts

    def in_picture(self, data: mujoco.MjData, camera: str, point: np.ndarray) -> tuple[float, float] | None:
        """Where a point (3,) in metres lies in the picture of `camera`: (x, y), [0, 1] being the picture.

        None where it is behind the camera. Draws nothing.
        """
        view = self._find_view(camera)
        with self._context:  # nobody else draws with this scene meanwhile
            view.before(data)
            everything = (view.camera, _EVERYTHING, self._scene)
            mujoco.mjv_updateScene(self._model, data, self._option, self._perturb, *everything)
            view.after(self._scene)
            eye = mujoco.mjv_averageCamera(*self._scene.camera)
        ahead = np.asarray(point, np.float64) - eye.pos
        depth = float(ahead @ eye.forward)
        if depth <= 0:
            return None
        half = depth * (eye.frustum_top - eye.frustum_bottom) / 2 / eye.frustum_near
        right, up = float(ahead @ np.cross(eye.forward, eye.up)) / half, float(ahead @ eye.up) / half
        if view.upside_down:
            right, up = -right, -up
        return 0.5 + right / 2, 0.5 - up / 2

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

    def _draw(self, data: mujoco.MjData, view: View) -> np.ndarray:
        self._read(data, view, self._scene, self._option)
        return (self._pixels[:, ::-1] if view.upside_down else self._pixels[::-1]).copy()

    def _read(self, data: mujoco.MjData, view: View, scene: mujoco.MjvScene, option: mujoco.MjvOption) -> None:
        """Draw what `scene` and `option` say into `_pixels`, bottom row first."""
        view.before(data)
        mujoco.mjv_updateScene(self._model, data, option, self._perturb, view.camera, _EVERYTHING, scene)
        view.after(scene)
        mujoco.mjr_render(self._rect, scene, self._mjr)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._mjr)

    def _find_view(self, name: str) -> View:
        if name not in self._views:
            self._views[name] = self._view(name, name)
        return self._views[name]

    def _view(self, name: str, spec: CameraSpec) -> View:
        return View(self._model, spec, upside_down=name in self._upside_down)


def _scene(
    model: mujoco.MjModel, geom_groups: Collection[int], site_groups: Collection[int]
) -> tuple[mujoco.MjvScene, mujoco.MjvOption]:
    """A scene that has room for all that may be drawn, and what is."""
    room = 100 + model.ngeom + model.nsite + 40 * model.ntendon + 2 * model.nwrap + model.nskin + 4 * model.nflex
    scene, option = mujoco.MjvScene(model, maxgeom=room), mujoco.MjvOption()
    for shown, groups in ((option.geomgroup, geom_groups), (option.sitegroup, site_groups)):
        if not set(groups) <= set(range(len(shown))):
            raise ValueError(f"groups {sorted(groups)} must lie between 0 and {len(shown) - 1}")
        shown[:] = [group in groups for group in range(len(shown))]
    return scene, option


@contextmanager
def _buffers(model: mujoco.MjModel, size: int, stock: bool) -> Iterator[None]:
    """Let a context that is made meanwhile have buffers for this size, small and plain ones unless `stock`."""
    screen, quality = model.vis.global_, model.vis.quality
    with _MAKING:
        sides = screen.offwidth, screen.offheight
        kept = {name: getattr(quality, name) for name in ("offsamples", "shadowsize", "numslices", "numstacks")}
        try:
            screen.offwidth = screen.offheight = size
            if not stock:
                quality.offsamples = quality.shadowsize = 0
                quality.numslices = min(quality.numslices, _FACETS[0])
                quality.numstacks = min(quality.numstacks, _FACETS[1])
            yield
        finally:
            screen.offwidth, screen.offheight = sides
            for name, value in kept.items():
                setattr(quality, name, value)


_OPEN: weakref.WeakSet[Renderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_OPEN):
        renderer.close()
