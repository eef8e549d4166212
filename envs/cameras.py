"""Where pictures are taken from: a model's own cameras, or places of one's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import mujoco
import numpy as np

from configs.names import unknown

_CONFIG_KEYS = ("type", "fixedcamid", "trackbodyid", "lookat", "distance", "azimuth", "elevation", "orthographic")


@dataclass(frozen=True, kw_only=True)
class LookAt:
    """A camera that stands still.

    Args:
        position: where it is, (x, y, z) in metres.
        target: the point in the middle of its picture, (x, y, z) in metres.
        fovy: vertical field of view, degrees in (0, 180); None takes the model's default, which is 45 in most.
        azimuth: of cameras that look straight down or up, which way is up in the picture: degrees from the x axis
            towards the y axis.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float | None = None
    azimuth: float = 90.0

    def __post_init__(self) -> None:
        numbers = np.array([*self.position, *self.target, self.azimuth])
        if numbers.shape != (7,) or not np.isfinite(numbers).all() or self.position == self.target:
            raise ValueError(f"{self} must have a position and another point as target, three finite numbers each")
        if self.fovy is not None and not 0 < self.fovy < 180:
            raise ValueError(f"fovy {self.fovy} must lie between 0 and 180 degrees")


@dataclass(frozen=True, kw_only=True)
class Middle:
    """The middle of what one of the model's own cameras sees, in full resolution.

    Args:
        camera: its name.
        share: of the side of its picture, in (0, 1].
    """

    camera: str
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share {self.share} must be above 0 and at most 1")


CameraSpec: TypeAlias = str | LookAt | Middle | Mapping[str, Any] | mujoco.MjvCamera


class View:
    """One camera as MuJoCo wants it.

    Args:
        spec: a name; a `LookAt`; a `Middle`; an `MjvCamera`, which is taken as it is at every picture; or a mapping in
            the style of Gymnasium's `default_camera_config`, on top of MuJoCo's default free camera (one with a
            `trackbodyid` looks at that body, without MuJoCo's delay, so that pictures depend on the state alone).
        upside_down: turn the picture by 180 degrees.

    Raises:
        ValueError: the model has no such camera or body, or a mapping has unknown keys.
    """

    def __init__(self, model: mujoco.MjModel, spec: CameraSpec, *, upside_down: bool = False) -> None:
        self.upside_down = upside_down
        self._fovy: float | None = None
        self._follows = -1
        self.camera = spec if isinstance(spec, mujoco.MjvCamera) else mujoco.MjvCamera()
        if isinstance(spec, mujoco.MjvCamera):
            return
        if isinstance(spec, str | Middle):
            self.camera.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)
            self.camera.fixedcamid = find(model, "camera", spec if isinstance(spec, str) else spec.camera)
            if isinstance(spec, Middle):
                half = math.radians(float(model.cam_fovy[self.camera.fixedcamid])) / 2
                self._fovy = math.degrees(2 * math.atan(spec.share * math.tan(half)))
            return
        mujoco.mjv_defaultFreeCamera(model, self.camera)
        if isinstance(spec, LookAt):
            self._look(spec)
        else:
            self._configure(model, spec)

    def before(self, data: mujoco.MjData) -> None:
        """To be called before a scene is updated."""
        if self._follows >= 0:
            self.camera.lookat[:] = data.subtree_com[self._follows]

    def after(self, scene: mujoco.MjvScene) -> None:
        """To be called after a scene was updated."""
        if self._fovy is not None:
            for eye in scene.camera:
                height = eye.frustum_near * math.tan(math.radians(self._fovy) / 2)
                eye.frustum_bottom, eye.frustum_top, eye.frustum_width = -height, height, 0.0

    def _look(self, spec: LookAt) -> None:
        x, y, z = (end - start for start, end in zip(spec.position, spec.target, strict=True))
        flat = math.hypot(x, y)
        self.camera.lookat[:] = spec.target
        self.camera.distance = math.hypot(flat, z)
        self.camera.azimuth = math.degrees(math.atan2(y, x)) if flat > 1e-9 else spec.azimuth
        self.camera.elevation = math.degrees(math.atan2(z, flat))
        self._fovy = spec.fovy

    def _configure(self, model: mujoco.MjModel, config: Mapping[str, Any]) -> None:
        for key, value in config.items():
            if key not in _CONFIG_KEYS:
                raise unknown("camera setting", key, _CONFIG_KEYS)
            if key == "lookat":
                self.camera.lookat[:] = value
            else:
                setattr(self.camera, key, value)
        if self.camera.trackbodyid >= model.nbody:
            raise ValueError(f"trackbodyid {self.camera.trackbodyid} must be one of the model's {model.nbody} bodies")
        if int(self.camera.type) != int(mujoco.mjtCamera.mjCAMERA_FIXED) and self.camera.trackbodyid >= 0:
            self.camera.type, self._follows = int(mujoco.mjtCamera.mjCAMERA_FREE), int(self.camera.trackbodyid)


def find(model: mujoco.MjModel, kind: str, name: str | int) -> int:
    """The number of a model's "geom", "body", "site" or "camera" of this name; a number stays what it is.

    Raises:
        ValueError: there is none; the message names the nearest one.
    """
    objects = {
        "geom": mujoco.mjtObj.mjOBJ_GEOM,
        "body": mujoco.mjtObj.mjOBJ_BODY,
        "site": mujoco.mjtObj.mjOBJ_SITE,
        "camera": mujoco.mjtObj.mjOBJ_CAMERA,
    }
    count = {"geom": model.ngeom, "body": model.nbody, "site": model.nsite, "camera": model.ncam}[kind]
    if isinstance(name, str):
        number = mujoco.mj_name2id(model, objects[kind], name)
        if number < 0:
            known = (mujoco.mj_id2name(model, objects[kind], i) for i in range(count))
            raise unknown(kind, name, _named(known), None if count else f"the model has no {kind}")
        return int(number)
    if not 0 <= name < count:
        raise ValueError(f"{kind} {name} must be one of the model's {count}, counted from 0")
    return int(name)


def _named(names: Iterable[str | None]) -> list[str]:
    return [name for name in names if name]
