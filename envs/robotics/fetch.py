"""Gymnasium-Robotics' Fetch environments, with what a task needs of them. Needs `gymnasium-robotics`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import gymnasium
import mujoco
import numpy as np

VERSION = "1.4.2"


class Fetch(gymnasium.Wrapper[Any, np.ndarray, Any, np.ndarray]):
    """One environment of the arm, without a time limit of its own.

    `success` is whether the environment says after the newest step that its goal is reached.

    Otherwise than there, the marker of the goal is where the goal is from the reset on, whoever draws it, and a goal
    that is reached before anything was done is drawn again.

    Args:
        name: of the task, "reach", "push" or "pick-and-place".
    """

    def __init__(self, name: str) -> None:
        env = _make(name)
        super().__init__(env)
        self._fetch, self.success = env, False
        self._marker = env.model.site("target0").id
        self._hand = env.model.site("robot0:grip").id
        self._block = env.model.body("object0").id if env.has_object else None
        fingers = [env.model.joint(f"robot0:{side}_gripper_finger_joint") for side in "lr"]
        self._fingers = [int(finger.qposadr[0]) for finger in fingers]
        self._aside = mujoco.MjData(env.model)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        env, model = self._fetch, self._fetch.model
        seen, info = self.env.reset(seed=seed)
        while env._is_success(seen["achieved_goal"], env.goal):
            env.goal = env._sample_goal()
        model.site_pos[self._marker] = env.goal - env.data.xpos[model.site_bodyid[self._marker]]
        mujoco.mj_kinematics(model, env.data)
        self.success = False
        return {**seen, "desired_goal": env.goal.copy()}, info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.env.step(action)
        self.success = bool(info["is_success"])
        return seen, float(reward), terminated, truncated, info

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Steps taken in here are undone at the end, to the bit."""
        env, success = self._fetch, self.success
        mujoco.mj_copyData(self._aside, env.model, env.data)
        try:
            yield
        finally:
            mujoco.mj_copyData(env.data, env.model, self._aside)
            self.success = success

    @property
    def hand(self) -> np.ndarray:
        """The point between the fingertips, (3,) metres."""
        return self._fetch.data.site_xpos[self._hand].copy()

    @property
    def opening(self) -> float:
        """How far both fingers are from each other, in metres: 0 to 0.1."""
        return float(self._fetch.data.qpos[self._fingers].sum())

    @property
    def block(self) -> np.ndarray | None:
        """Where the block's middle is, (3,) metres; None where there is no block."""
        return None if self._block is None else self._fetch.data.xpos[self._block].copy()

    @property
    def goal(self) -> np.ndarray:
        """Where the hand or the block is to be, (3,) metres."""
        return self._fetch.goal.copy()


def _make(name: str) -> Any:
    """The environment itself.

    Raises:
        ImportError: Gymnasium-Robotics is not installed, or lacks a part; the message says how to install it.
    """
    try:
        with redirect_stderr(io.StringIO()):  # at each import it has news about other environments of its own
            from gymnasium_robotics.envs.fetch import pick_and_place, push, reach
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Gymnasium-Robotics is not installed ({error}); run: pip install gymnasium-robotics=={VERSION}",
            name=error.name,
        ) from error
    classes = {
        "reach": reach.MujocoFetchReachEnv,
        "push": push.MujocoFetchPushEnv,
        "pick-and-place": pick_and_place.MujocoFetchPickAndPlaceEnv,
    }
    return classes[name]()
