"""What several files need to go through, to compare, and to run elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.tabletop.specs import SPECS


@pytest.fixture(params=sorted(SPECS))
def task(request: pytest.FixtureRequest) -> str:
    """Every task of ours in turn."""
    name: str = request.param
    return name


@pytest.fixture
def differences() -> Callable[[Any, Any], list[str]]:
    """Names the places at which two nested observations or infos differ in type, shape or a single byte."""

    def compare(left: Any, right: Any, at: str = "") -> list[str]:
        if type(left) is not type(right):
            return [f"{at}: {type(left)} and {type(right)}"]
        if isinstance(left, dict):
            keys = [f"{at}: keys"] if left.keys() != right.keys() else []
            return keys + [d for k in left.keys() & right.keys() for d in compare(left[k], right[k], f"{at}.{k}")]
        if isinstance(left, tuple):
            return compare(dict(enumerate(left)), dict(enumerate(right)), at)
        if isinstance(left, np.ndarray):
            same = left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
            return [] if same else [at]
        return [] if left == right else [at]

    return compare


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a process of its own, with warnings as errors; keywords are environment variables."""

    def run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), *sys.path]))
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths, **environment},
        )

    return run


@pytest.fixture
def project() -> Callable[[Any, np.ndarray], np.ndarray]:
    """Where a point (3,) in metres lies in the front camera's picture: (x, y), [0, 1] being the picture."""

    def place(env: Any, point: np.ndarray) -> np.ndarray:
        camera = env.data.cam("front")
        x, y, z = camera.xmat.reshape(3, 3).T @ (point - camera.xpos)
        half = np.tan(np.deg2rad(env.model.cam("front").fovy[0]) / 2)
        return np.array([0.5 + x / (-z * half) / 2, 0.5 - y / (-z * half) / 2])

    return place
