"""Meta-World's own environments, with what they do otherwise than Gymnasium's contract put right. Needs `metaworld`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import mujoco
import numpy as np

VERSION = "3.1.1"
PROPRIOCEPTION = 4  # numbers at the start of the state: where the hand is, and how far the gripper is open
ASIDE = 0.5  # a contact's normal is steeper than that where it is from above: 30 degrees
STATE = 39  # hand, gripper and up to two objects, now and a step ago, and the goal


class Sawyer(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """One task's environment, with the whole state (39,) float64 as observation.

    `state` is the newest one, and `success` whether Meta-World says after the newest step that the task is done.

    Otherwise than in Meta-World, `reset(seed=…)` decides the scene, whatever came before; the state has the goal in it,
    which Meta-World's scripted policies need; what `reset` gives is the scene as it is, not as it was before the last
    things were put in their places; and in it everything is at rest.

    Args:
        name: of the task, without its version, for example "pick-place".
    """

    def __init__(self, name: str) -> None:
        env: Any = _classes()[f"{name}-v3"]()
        env._set_task_called = True  # its scenes are drawn by us, not set from a list
        env._freeze_rand_vec = False  # draw another scene at each reset
        env.seeded_rand_vec = True  # from its own generator, not from NumPy's global one
        env._partially_observable = False
        # Kept from the time when the goal was hidden, with bounds that cut it to zero.
        vars(env).pop("sawyer_observation_space", None)
        env.observation_space = env.sawyer_observation_space
        super().__init__(env)
        self._sawyer = env
        self.state, self.success = np.zeros(STATE), False
        self._aside = mujoco.MjData(env.model)
        # The tasks move bodies and sites of the model at each reset, some of them after the hand has gone to its place.
        self._places = {part: getattr(env.model, part).copy() for part in ("body_pos", "site_pos")}
        self._hand = int(env.model.body("hand").rootid[0])
        self._fingers = [env.model.body(name).id for name in ("leftpad", "rightpad")]
        # Degrees of freedom that are not the robot's.
        self._loose = env.model.body_rootid[env.model.dof_bodyid] != self._hand

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        env = self._sawyer
        if seed is not None:
            env.seed(seed)
        for part, places in self._places.items():
            getattr(env.model, part)[:] = places
        # Meta-World's own reset does this twice, of which the first begins from what the last episode left.
        mujoco.mj_resetData(env.model, env.data)
        env.curr_path_length = 0
        env.reset_model()
        # What was hit while the hand went to its place is put back, but keeps its speed: the stick tasks stop the wrong
        # joint, and with MuJoCo 3.11 (not with 3.3) their thermos would slide to its goal all alone.
        env.data.qvel[self._loose] = 0
        mujoco.mj_forward(env.model, env.data)
        env._prev_obs = env._get_curr_obs_combined_no_goal()
        self.state, self.success = env._get_obs(), False
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.state, reward, terminated, truncated, info = self.env.step(action)
        self.success = bool(info["success"])
        return self.state, float(reward), terminated, truncated, info

    @property
    def holds(self) -> bool:
        """Whether both fingers touch, at their sides, one thing that can move."""
        model, contacts = self._sawyer.model, self._sawyer.data.contact
        touched: dict[int, set[int]] = {finger: set() for finger in self._fingers}
        # Closed fingers that stand on a thing touch it, too, but from above.
        bodies = model.geom_bodyid[contacts.geom[np.abs(contacts.frame[:, 2]) < ASIDE]]
        for first, second in (*bodies, *bodies[:, ::-1]):
            if first in touched and model.body_weldid[second] and model.body_rootid[second] != self._hand:
                touched[first].add(int(model.body_weldid[second]))
        return bool(set.intersection(*touched.values()))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Steps taken in here are undone at the end, to the bit. Meta-World's limit of 500 steps begins anew."""
        env = self._sawyer
        mujoco.mj_copyData(self._aside, env.model, env.data)
        places = {part: getattr(env.model, part).copy() for part in self._places}
        kept = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in vars(env).items()}
        state, success = self.state, self.success
        env.curr_path_length = 0
        try:
            yield
        finally:
            mujoco.mj_copyData(env.data, env.model, self._aside)
            for part, values in places.items():
                getattr(env.model, part)[:] = values
            vars(env).update(kept)
            self.state, self.success = state, success


def scripted_policy(name: str) -> Any:
    """Meta-World's scripted policy of a task."""
    _classes()
    from metaworld.policies import ENV_POLICY_MAP

    policies: dict[str, Any] = dict(ENV_POLICY_MAP)
    return policies[f"{name}-v3"]()


def _classes() -> dict[str, Any]:
    """The tasks' classes by name.

    Raises:
        ImportError: Meta-World is not installed; the message says how to install it.
    """
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Meta-World is not installed; run: pip install --no-deps metaworld=={VERSION}", name=error.name
        ) from error
    return dict(ALL_V3_ENVIRONMENTS)
