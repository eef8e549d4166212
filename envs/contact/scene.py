"""The MuJoCo model of the tasks with contact: the table and arm of `envs.tabletop`, blocks that move when they are
pushed, and flat mats.

Nothing is welded, teleported or attached: what moves a block is the fingers, the table and its weight. An episode uses
some of the blocks and mats; the others wait below the floor.
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs.tabletop.scene import BACKDROP_GROUP, arm_actuators, arm_body, arm_defaults, front_camera

TIMESTEP = 0.0025  # half of the other tasks': what is gripped and pushed needs it
BLOCKS, MATS = 4, 3  # places for them
HALF = 0.025  # of a block's side, metres
BLOCK_MASS = 0.08  # kg
MAT_HALF = 0.05  # of a mat's side, metres
MAT_HEIGHT = 0.001  # of its middle above the table; it touches nothing
BELOW = -5.0  # metres: where what is not used waits, without weight


def scene_xml() -> str:
    """The MJCF text of the whole scene."""
    blocks = "".join(
        f"""
    <body name="block{i}" pos="{i} 0 {BELOW}" gravcomp="1">
      <freejoint name="block{i}"/>
      <geom name="block{i}" type="box" size="{HALF} {HALF} {HALF}" mass="{BLOCK_MASS}" class="block"/>
    </body>"""
        for i in range(BLOCKS)
    )
    mats = "".join(
        f"""
    <body name="mat{i}" mocap="true" pos="{i} 1 {BELOW}">
      <geom name="mat{i}" type="box" size="{MAT_HALF} {MAT_HALF} {MAT_HEIGHT}" contype="0" conaffinity="0"/>
    </body>"""
        for i in range(MATS)
    )
    return f"""
<mujoco model="vla contact">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" jacobian="dense" cone="elliptic" impratio="10"
    iterations="20"/>
  <visual>
    <global offwidth="640" offheight="640"/>
    <quality shadowsize="1024" offsamples="0" numslices="16" numstacks="10"/>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.35 0.35 0.35" specular="0 0 0"/>
    <map znear="0.02" zfar="8"/>
  </visual>
  <default>
    {arm_defaults()}
    <default class="block">
      <geom contype="3" conaffinity="3" condim="4" friction="0.8 0.01 0.001"/>
    </default>
  </default>
  <worldbody>
    <light name="sun" type="directional" pos="0.5 0.4 2" dir="-0.3 -0.25 -1" diffuse="0.55 0.55 0.55"
      specular="0.1 0.1 0.1" castshadow="false"/>
    {front_camera()}
    <geom name="floor" type="plane" pos="0 0 -0.5" size="3 3 0.1" rgba="0.30 0.32 0.35 1" contype="0" conaffinity="0"
      group="{BACKDROP_GROUP}"/>
    <geom name="table" type="box" pos="-0.05 0 -0.02" size="0.45 0.40 0.02" rgba="0.55 0.53 0.50 1"
      contype="2" conaffinity="1" group="{BACKDROP_GROUP}"/>
    {arm_body()}
    {blocks}
    {mats}
  </worldbody>
  {arm_actuators()}
</mujoco>"""


class Props:
    """The blocks and mats of one simulation: puts them in place, and says where they are."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        self._bodies = np.array([model.body(f"block{i}").id for i in range(BLOCKS)])
        self._geoms = np.array([model.geom(f"block{i}").id for i in range(BLOCKS)])
        self._mats = np.array([model.geom(f"mat{i}").id for i in range(MATS)])
        self._mocaps = np.array([model.body(f"mat{i}").mocapid[0] for i in range(MATS)])
        self._qpos = np.array([model.joint(f"block{i}").qposadr[0] for i in range(BLOCKS)])
        self._dofs = np.array([model.joint(f"block{i}").dofadr[0] for i in range(BLOCKS)])
        fingers = [model.body(f"{side}_finger").id for side in ("left", "right")]
        self._finger_geoms = frozenset(np.flatnonzero(np.isin(model.geom_bodyid, fingers)).tolist())

    def place(
        self,
        blocks: np.ndarray,
        yaws: np.ndarray,
        block_colours: np.ndarray,
        mats: np.ndarray,
        mat_colours: np.ndarray,
    ) -> None:
        """Put n blocks at `(n, 2)` metres on the table, turned by `(n,)` radians, in colours `(n, 3)` in [0, 1], and m
        mats likewise; all others away.
        """
        for i in range(BLOCKS):
            used, first = i < len(blocks), self._qpos[i]
            self._model.body_gravcomp[self._bodies[i]] = 0.0 if used else 1.0
            self._data.qpos[first : first + 3] = (*blocks[i], HALF) if used else (i, 0.0, BELOW)
            yaw = float(yaws[i]) if used else 0.0
            self._data.qpos[first + 3 : first + 7] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
            if used:
                self._model.geom_rgba[self._geoms[i], :3] = block_colours[i]
        for i in range(MATS):
            used = i < len(mats)
            self._data.mocap_pos[self._mocaps[i]] = (*mats[i], MAT_HEIGHT) if used else (i, 1.0, BELOW)
            if used:
                self._model.geom_rgba[self._mats[i], :3] = mat_colours[i]

    @property
    def blocks(self) -> np.ndarray:
        """Where the middles of all blocks are, `(BLOCKS, 3)` metres."""
        positions: np.ndarray = self._data.qpos[self._qpos[:, None] + np.arange(3)]
        return positions

    @property
    def mats(self) -> np.ndarray:
        """Where the middles of all mats are, `(MATS, 3)` metres."""
        positions: np.ndarray = self._data.mocap_pos[self._mocaps]
        return positions

    @property
    def speeds(self) -> np.ndarray:
        """Of the blocks' middles, `(BLOCKS,)` metres a second."""
        velocities: np.ndarray = self._data.qvel[self._dofs[:, None] + np.arange(3)]
        return np.linalg.norm(velocities, axis=1)

    def touched(self) -> np.ndarray:
        """Which blocks a finger touches now, `(BLOCKS,)` bool."""
        found = np.zeros(BLOCKS, np.bool_)
        for pair in self._data.contact.geom.tolist():
            if self._finger_geoms.intersection(pair):
                found |= np.isin(self._geoms, pair)
        return found
