"""The simulation of the tasks with contact: arm and things, without pictures, words and outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from envs.contact.scene import Part, Props, scene_xml
from envs.tabletop.arm import ACTION_NAMES, AGENT_POS_HIGH, AGENT_POS_LOW, Arm
from envs.tabletop.scene import CONTROL_HZ


class ContactTable(gymnasium.Env[np.ndarray, np.ndarray]):
    """The arm at a table with bodies and fixtures. Observation: the arm's proprioception (12,) float32.

    Args:
        action_names: which of `envs.tabletop.arm.ACTION_NAMES` an action has, in [-1, 1] each.
        floor: the lowest height of the pinch point, metres.
        bodies, fixtures: what there is to move, and what stands still.
        turntables: where there are some, (x, y) in metres.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": CONTROL_HZ}  # type: ignore[misc]

    def __init__(
        self,
        action_names: tuple[str, ...],
        floor: float,
        bodies: Sequence[Part],
        fixtures: Sequence[Part],
        turntables: Sequence[tuple[float, float]] = (),
    ) -> None:
        self.model = mujoco.MjModel.from_xml_string(scene_xml(bodies, fixtures, turntables))
        self.data = mujoco.MjData(self.model)
        self._parts, self._floor = (tuple(bodies), tuple(fixtures)), floor
        self.props = Props(self.model, self.data, *self._parts)
        self.arm = Arm(self.model, self.data, floor=floor)
        self._aside = mujoco.MjData(self.model)
        self._commands = np.array([ACTION_NAMES.index(name) for name in action_names])
        self.observation_space = spaces.Box(AGENT_POS_LOW, AGENT_POS_HIGH, dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (len(action_names),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        return self.arm.agent_pos(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        command = np.zeros(len(ACTION_NAMES))
        command[self._commands] = action
        self.arm.step(command)
        return self.arm.agent_pos(), 0.0, False, False, {}

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Steps taken in here are undone at the end, to the bit."""
        mujoco.mj_copyData(self._aside, self.model, self.data)
        reference = self.arm.reference
        try:
            yield
        finally:
            mujoco.mj_copyData(self.data, self.model, self._aside)
            self.arm.reference = reference

    # A copy has a simulation of its own, and so needs others to look at it.

    def __getstate__(self) -> dict[str, Any]:
        held = dict(self.__dict__)
        del held["props"], held["_aside"]
        return held

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        copied, self.data = self.data, mujoco.MjData(self.model)
        mujoco.mj_copyData(self.data, self.model, copied)
        self._aside = mujoco.MjData(self.model)
        self.props = Props(self.model, self.data, *self._parts)
        self.arm = Arm(self.model, self.data, self.arm.reference, self._floor)
