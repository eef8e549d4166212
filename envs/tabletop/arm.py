"""Cartesian velocity control of the arm: damped least squares on a reference pose, tracked by the joint servos.

The hand always points down; a command moves it along x, y, z, turns it about the vertical, and opens or closes the
fingers. The reference is integrated, so that commands do not drift with servo lag, and is held inside WORKSPACE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from envs.tabletop.scene import ARM_JOINTS, CONTROL_HZ, FINGER_JOINTS, FINGER_RANGE

ACTION_NAMES = ("dx", "dy", "dz", "yaw_rate", "gripper")
MAX_SPEED = np.array([0.35, 0.35, 0.25, 2.0, 0.07])  # m/s, m/s, m/s, rad/s, m/s of finger opening, at action 1
WORKSPACE = np.array([[-0.21, -0.23, 0.03], [0.21, 0.23, 0.28]])  # x, y, z of the pinch point, metres
MAX_YAW = 1.4
HOME = np.array([0.0, -0.25, 0.55, 0.0, -0.30, 0.0])
DAMPING = 0.02
RAMP = 5  # the joint targets move in this many equal parts within one control step

AGENT_POS_NAMES = ("ee_x", "ee_y", "ee_z", "yaw_sin", "yaw_cos", "opening", *ARM_JOINTS)
_JOINT_BOUND = 3.2
_RAMP_SHARES = np.arange(1, RAMP + 1)[:, None] / RAMP
_DAMPING = DAMPING**2 * np.eye(6)
AGENT_POS_LOW = np.array([-1, -1, -1, -1, -1, -0.1, *[-_JOINT_BOUND] * 6], dtype=np.float32)
AGENT_POS_HIGH = np.array([1, 1, 1.5, 1, 1, 0.1, *[_JOINT_BOUND] * 6], dtype=np.float32)

Reference = tuple[np.ndarray, np.ndarray, float, float]  # joint positions (nq,), pinch point (3,), yaw, opening


class Arm:
    """Drives the arm of one simulation. Holds the reference pose; `model` and `data` stay the environment's.

    Args:
        reference: that of an arm to go on from.
        floor: the lowest height of the pinch point, metres.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        reference: Reference | None = None,
        floor: float = WORKSPACE[0, 2],
    ) -> None:
        self.model, self.data = model, data
        self._floor, self._substeps = floor, round(1 / (CONTROL_HZ * model.opt.timestep)) // RAMP
        self._low = np.array([*WORKSPACE[0, :2], floor])
        self._shadow = mujoco.MjData(model)  # carries the reference pose for kinematics only
        self._site = model.site("pinch").id
        # Joints of the arm lie next to each other, so that views into the simulation's arrays can be kept.
        first, dof = model.joint(ARM_JOINTS[0]).qposadr[0], model.joint(ARM_JOINTS[0]).dofadr[0]
        assert [model.joint(name).qposadr[0] - first for name in ARM_JOINTS] == list(range(len(ARM_JOINTS)))
        self._qpos = slice(first, first + len(ARM_JOINTS))
        self._fingers = np.array([model.joint(name).qposadr[0] for name in FINGER_JOINTS])
        self._range = np.array([model.joint(name).range for name in ARM_JOINTS]).T
        self._joints = self._shadow.qpos[self._qpos]
        self._shadow_position = self._shadow.site_xpos[self._site]
        self._shadow_rotation = self._shadow.site_xmat[self._site]
        self._jacobian = np.zeros((6, model.nv))
        self._translation, self._rotation = self._jacobian[:3], self._jacobian[3:]
        self._arm_jacobian = self._jacobian[:, dof : dof + len(ARM_JOINTS)]
        self._error, self._step = np.zeros(6), np.zeros(6)
        self._goal = np.zeros(len(ARM_JOINTS) + len(FINGER_JOINTS))
        self._target = np.zeros(3)
        self._yaw = self._opening = 0.0
        if reference is not None:
            self.reference = reference

    @property
    def reference(self) -> Reference:
        """What the arm holds besides the simulation."""
        return self._shadow.qpos.copy(), self._target.copy(), self._yaw, self._opening

    @reference.setter
    def reference(self, reference: Reference) -> None:
        self._shadow.qpos[:], self._target, self._yaw, self._opening = reference

    def __reduce__(self) -> tuple[type[Arm], tuple[mujoco.MjModel, mujoco.MjData, Reference, float]]:
        """Copies are made anew: views into a simulation's arrays would lose it in silence."""
        return Arm, (self.model, self.data, self.reference, self._floor)

    def reset(self, position: np.ndarray, yaw: float = 0.0, opening: float = 0.02) -> None:
        """Put the arm at rest with the pinch point at `position` (metres) and the given yaw (radians)."""
        self._target = np.clip(position, self._low, WORKSPACE[1])
        self._yaw, self._opening = yaw, opening
        self._shadow.qpos[:] = self.data.qpos
        self._joints[:] = HOME
        for _ in range(100):
            if self._solve() < 1e-5:
                break
        self._shadow.qpos[self._fingers] = opening
        self.data.qpos[:] = self._shadow.qpos
        self.data.qvel[:] = 0
        self.data.ctrl[:] = (*self._joints, opening, opening)
        mujoco.mj_forward(self.model, self.data)

    def step(self, command: np.ndarray, ticks: Sequence[np.ndarray] | None = None) -> None:
        """Advance one control step under `command` (5 values in [-1, 1], ACTION_NAMES order).

        `ticks`, one entry a part of the ramp, are the mocap positions (slots, 3) of the moving objects.
        """
        # Minimum and maximum instead of clip, here and below: this runs every step, and clip takes three times as long.
        change = np.minimum(np.maximum(command, -1.0), 1.0) * MAX_SPEED / CONTROL_HZ
        self._target = np.minimum(np.maximum(self._target + change[:3], self._low), WORKSPACE[1])
        self._yaw = min(max(self._yaw + float(change[3]), -MAX_YAW), MAX_YAW)
        self._opening = min(max(self._opening + float(change[4]), 0.0), FINGER_RANGE)
        self._solve()
        self._solve()
        control, mocap = self.data.ctrl, self.data.mocap_pos
        self._goal[: len(ARM_JOINTS)], self._goal[len(ARM_JOINTS) :] = self._joints, self._opening
        ramp = control + (self._goal - control) * _RAMP_SHARES
        for part in range(RAMP):
            control[:] = ramp[part]
            if ticks is not None:
                mocap[:] = ticks[part]
            mujoco.mj_step(self.model, self.data, nstep=self._substeps)
        # A step ends with the integration: poses are still those from before it, 2 mm behind at full speed.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    @property
    def position(self) -> np.ndarray:
        """The pinch point (3,), metres."""
        return self.data.site_xpos[self._site].copy()

    def agent_pos(self) -> np.ndarray:
        """Proprioception, AGENT_POS_NAMES order, float32."""
        values = np.empty(len(AGENT_POS_NAMES), dtype=np.float32)
        rotation = self.data.site_xmat[self._site]
        values[:3] = self.data.site_xpos[self._site]
        values[3], values[4], values[5] = rotation[3], rotation[0], self.data.qpos[self._fingers[0]]
        values[6:] = self.data.qpos[self._qpos]
        return np.minimum(np.maximum(values, AGENT_POS_LOW), AGENT_POS_HIGH)

    def _solve(self) -> float:
        """One damped-least-squares step of the reference pose towards the target; returns the error before it."""
        mujoco.mj_kinematics(self.model, self._shadow)
        mujoco.mj_comPos(self.model, self._shadow)
        mujoco.mj_jacSite(self.model, self._shadow, self._translation, self._rotation, self._site)
        error, jacobian = self._error, self._arm_jacobian
        error[:3] = self._target - self._shadow_position
        # The rotation vector to the wanted pose, for small angles: half the skew part of wanted @ rotation.T, where
        # wanted has the rows (cos, -sin, 0), (sin, cos, 0), (0, 0, 1).
        cos, sin = math.cos(self._yaw), math.sin(self._yaw)
        xx, xy, xz, yx, yy, yz, zx, zy, _ = self._shadow_rotation.tolist()
        error[3:] = (
            0.5 * (yz - (zx * sin + zy * cos)),
            0.5 * ((zx * cos - zy * sin) - xz),
            0.5 * ((xx * sin + xy * cos) - (yx * cos - yy * sin)),
        )
        gram = jacobian @ jacobian.T + _DAMPING
        mujoco.mju_cholFactor(gram, 0.0)
        mujoco.mju_cholSolve(self._step, gram, error)
        joints = self._joints + jacobian.T @ self._step
        np.minimum(np.maximum(joints, self._range[0]), self._range[1], out=self._joints)
        return float(np.abs(error).max())
