"""Scripted experts, by task. An expert maps `info["privileged"]` and the environment to a clean action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from envs.experts.reach import reach
from envs.experts.track import track

Expert = Callable[[dict[str, Any]], np.ndarray]

EXPERTS: dict[str, Expert] = {"reach": reach, "track": track, "track_motion": track}
