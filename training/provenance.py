"""Where a checkpoint comes from: code, data, settings, versions."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training.data.episodes import Dataset

VERSIONED = ("torch", "numpy", "tokenizers", "accelerate", "mujoco", "gymnasium")


def provenance(settings: dict[str, Any], datasets: Sequence[Dataset]) -> dict[str, Any]:
    """A JSON-ready record; data are named by the checksums of their pictures."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "settings": settings,
        "data": [
            {
                "task": d.header["task"],
                "episodes": d.episodes,
                "steps": d.steps,
                "pixels_sha256": d.header["files"]["pixels.npy"]["sha256"],
                "collection": d.header.get("collection"),
                **{name: d.header[name] for name in ("source", "action_scale") if name in d.header},  # of an import
                "gl_renderer": d.header.get("gl_renderer"),
                "versions": d.header.get("versions"),
            }
            for d in datasets
        ],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONED}},
        "processor": platform.processor() or platform.machine(),
    }


def collection_seeds(provenance: Mapping[str, Any]) -> set[int]:
    """`collect.seed` of all demonstrations that a policy learned from, and those that it began with. What is no seed
    says nothing: the file may be anybody's.
    """
    data, start = provenance.get("data"), provenance.get("start")
    collections = [each.get("collection") for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    seeds = [each.get("seed") for each in collections if isinstance(each, dict)]
    before = start.get("collection_seeds") if isinstance(start, dict) else None
    return {seed for seed in (*seeds, *(before if isinstance(before, list) else ())) if type(seed) is int}


def fingerprint(data: Dataset) -> str:
    """Twelve hexadecimal digits that change with any byte of the dataset's arrays, and with its instructions."""
    described = {name: data.header[name] for name in ("task", "instructions", "files")}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def _commit() -> str:
    """The code's git commit, with "+" when files differ from it; empty outside a repository."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if changed else "")
