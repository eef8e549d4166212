"""What demonstrates Meta-World's tasks: its own scripted policies, which read the whole state; in nine tasks with a way
to take hold of things that serves in every state, see `envs.metaworld.grasps`.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import gymnasium
import numpy as np

from envs.metaworld.grasps import CLOSE, GRASPS, approach, as_held, drag

GAIN = 10.0  # full speed from 10 cm on
OPEN = -1.0


def expert(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> np.ndarray:
    """What is to be done now, (4,) in [-1, 1]. Where nothing is to be done, the hand stays at its start."""
    known = info["privileged"]
    state = known["reads"].copy()  # some scripted policies change what they read
    return np.clip(_action(known, state), -1, 1).astype(np.float32)


def _action(known: dict[str, Any], state: np.ndarray) -> np.ndarray:
    name = known["script"]
    if not name:
        return np.array([*GAIN * (known["start"] - state[:3]), OPEN])
    if name not in GRASPS:
        return _scripted(name, state)
    if not known["held"]:
        return approach(GRASPS[name], state)
    if GRASPS[name].drag:
        return drag(state)
    return np.array([*_scripted(name, as_held(GRASPS[name], state))[:3], CLOSE])


def _scripted(name: str, state: np.ndarray) -> np.ndarray:
    """What Meta-World's scripted policy does: it asks for up to 25 times as much as there is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so at each step
        return np.asarray(_policy(name).get_action(state))


@cache
def _policy(name: str) -> Any:
    from envs.metaworld.sawyer import scripted_policy

    return scripted_policy(name)
