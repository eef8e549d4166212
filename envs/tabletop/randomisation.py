"""Domain randomisation of a scene's look: light, table colour, camera pose."""

from __future__ import annotations

import mujoco
import numpy as np

LIGHT_SHARE = (0.7, 1.25)  # brightness of the sun and the headlight, as a share of the default
LIGHT_TILT = 0.25  # metres per metre of fall, each horizontal axis
TABLE_SHIFT = 0.12  # per channel
CAMERA_SHIFT = 0.025  # metres, each axis
CAMERA_TURN = np.deg2rad(0.6)


class SceneLook:
    """Remembers a model's default look, and writes a random or the default one into it."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._table = model.geom("table").id
        self._light = model.light("sun").id
        self._camera = model.camera("front").id
        self._defaults = (
            model.light_diffuse.copy(),
            model.light_dir.copy(),
            model.vis.headlight.diffuse.copy(),
            model.geom_rgba[self._table].copy(),
            model.cam_pos.copy(),
            model.cam_quat.copy(),
        )

    def apply(self, rng: np.random.Generator | None) -> None:
        """Write the default look, then, with a generator, vary it."""
        model = self._model
        diffuse, direction, headlight, table, camera_pos, camera_quat = self._defaults
        model.light_diffuse[:], model.light_dir[:], model.vis.headlight.diffuse[:] = diffuse, direction, headlight
        model.geom_rgba[self._table], model.cam_pos[:], model.cam_quat[:] = table, camera_pos, camera_quat
        if rng is None:
            return
        model.light_diffuse[self._light] *= rng.uniform(*LIGHT_SHARE)
        model.light_dir[self._light, :2] += rng.uniform(-LIGHT_TILT, LIGHT_TILT, 2)
        model.vis.headlight.diffuse[:] = headlight * rng.uniform(*LIGHT_SHARE)
        model.geom_rgba[self._table, :3] = np.clip(table[:3] + rng.uniform(-TABLE_SHIFT, TABLE_SHIFT, 3), 0, 1)
        model.cam_pos[self._camera] += rng.uniform(-CAMERA_SHIFT, CAMERA_SHIFT, 3)
        turn, quat = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, _unit(rng.normal(size=3)), rng.uniform(-CAMERA_TURN, CAMERA_TURN))
        mujoco.mju_mulQuat(quat, camera_quat[self._camera], turn)
        model.cam_quat[self._camera] = quat


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
