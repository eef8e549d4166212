"""What an expert would do next: it acts on alone from where the simulation is, which is then put back to the bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np


def foresee(
    task: gymnasium.Env[Any, Any],
    expert: Callable[[Any, dict[str, Any]], np.ndarray],
    steps: int,
    *,
    aside: AbstractContextManager[None],
    knowledge: Callable[[], Any],
    step: Callable[[np.ndarray], Any],
) -> np.ndarray:
    """The expert's next S actions if nobody disturbed it, (S, A) in [-1, 1]. Nothing is drawn.

    Args:
        task: what the expert is asked about.
        aside: undoes at its end the steps taken in it.
        knowledge: what the expert may know of a moment, `info["privileged"]`.
        step: moves the simulation on as the task's own step does.
    """
    actions = []
    with aside:
        for _ in range(steps):
            action = expert(task, {"privileged": knowledge()})
            actions.append(action)
            step(action)
    return np.stack(actions)
