"""Episodes and the dataset folder: what was seen, done and said, with labels. NumPy only.

A dataset is a folder of memory-mapped arrays and one `header.json`, which is written last. Everything that depends on
what the words mean is there for every object that could have been named, not only for the one that was: one
demonstration then teaches what each of the scene's instructions would have asked for, and where the gripper is says
nothing about which one is read. N steps, E episodes, V cameras, O objects (fewer are padded with zeros), S steps of a
plan, P proprioception and A action dimensions:

| file | shape | content |
|---|---|---|
| `pixels.npy` | (N, V, H, W, 3) uint8 | what the cameras saw before the step |
| `agent_pos.npy` | (N, P) float32 | proprioception before the step |
| `executed.npy` | (N, A) float32 | what was done, in [-1, 1]: the expert's action for the target plus noise (DART) |
| `action.npy` | (N, O, S, A) float32 | the labels: from this step on, the expert's next S actions towards object o |
| `boxes.npy` | (N, V, O, 4) float32 | the objects' visible boxes (cx, cy, w, h) in [0, 1] |
| `visible.npy` | (N, V, O) bool | whether the object is visible |
| `offsets.npy` | (E + 1,) int64 | first step of every episode, then N |
| `seeds.npy` | (E,) int64 | environment seed |
| `targets.npy` | (E,) int64 | the object that the demonstration went to |
| `events.npy` | (E, O, 2) int64 | first and one-past-last step in which the instruction's event holds |

The header holds the schema version, task, names, counts, versions, every file's size and checksum, and `instructions`:
for every episode one text an object, null for an object that no words single out.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA_VERSION = 2
HEADER = "header.json"
ARRAYS: dict[str, str] = {
    "pixels": "uint8",
    "agent_pos": "float32",
    "action": "float32",
    "executed": "float32",
    "boxes": "float32",
    "visible": "bool",
    "offsets": "int64",
    "seeds": "int64",
    "targets": "int64",
    "events": "int64",
}
_RANKS = {  # number of axes
    "pixels": 5,
    "agent_pos": 2,
    "action": 4,
    "executed": 2,
    "boxes": 4,
    "visible": 3,
    "offsets": 1,
    "seeds": 1,
    "targets": 1,
    "events": 3,
}
_PER_STEP = ("pixels", "agent_pos", "action", "executed", "boxes", "visible")
_PER_EPISODE = ("seeds", "targets", "events")
_OBJECT_AXIS = {"action": 1, "boxes": 2, "visible": 2, "events": 1}


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names the file, what was found and what to do."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One recorded episode of K steps; arrays as in the module's table, without the E axis."""

    seed: int
    instructions: tuple[str | None, ...]
    target: int
    success: bool
    pixels: np.ndarray
    agent_pos: np.ndarray
    action: np.ndarray
    executed: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray
    events: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset read from disk: memory-mapped arrays and the header. See `open_dataset`."""

    path: Path
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def instructions(self) -> list[list[str | None]]:
        """By episode and object; None where no words single the object out."""
        return [list(texts) for texts in self.header["instructions"]]

    @property
    def texts(self) -> list[str]:
        """All instructions, one after the other."""
        return [text for texts in self.header["instructions"] for text in texts if text is not None]

    @property
    def episodes(self) -> int:
        return len(self.arrays["seeds"])

    @property
    def steps(self) -> int:
        return int(self.arrays["offsets"][-1])


def write_dataset(path: Path, episodes: Sequence[Episode], header: dict[str, Any]) -> None:
    """Write episodes as a dataset folder, atomically: the folder appears under its name only when complete."""
    if not episodes:
        raise DatasetError(f"{path}: no episode to write")
    partial = _fresh_partial(path)
    for name in _PER_STEP:
        array = np.concatenate([getattr(e, name) for e in episodes]).astype(ARRAYS[name], copy=False)
        np.save(partial / f"{name}.npy", array)
    np.save(partial / "offsets.npy", np.cumsum([0, *map(len, episodes)]).astype(np.int64))
    np.save(partial / "seeds.npy", np.array([e.seed for e in episodes], dtype=np.int64))
    np.save(partial / "targets.npy", np.array([e.target for e in episodes], dtype=np.int64))
    np.save(partial / "events.npy", np.array([e.events for e in episodes], dtype=np.int64))
    _finish(partial, path, header, [list(e.instructions) for e in episodes])


def merge_datasets(path: Path, parts: Sequence[Dataset], header: dict[str, Any]) -> None:
    """Join datasets of the same layout into one, streaming the large arrays."""
    partial = _fresh_partial(path)
    steps = sum(part.steps for part in parts)
    for name in _PER_STEP:
        shape = (steps, *parts[0].arrays[name].shape[1:])
        joined = np.lib.format.open_memmap(partial / f"{name}.npy", "w+", np.dtype(ARRAYS[name]), shape)
        at = 0
        for part in parts:
            joined[at : at + part.steps] = part.arrays[name]
            at += part.steps
        joined.flush()
        del joined
    lengths = np.concatenate([np.diff(part.arrays["offsets"]) for part in parts])
    np.save(partial / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    for name in _PER_EPISODE:
        np.save(partial / f"{name}.npy", np.concatenate([part.arrays[name] for part in parts]))
    _finish(partial, path, header, [texts for part in parts for texts in part.instructions])


def open_dataset(path: Path, *, verify: bool = True) -> Dataset:
    """Read a dataset folder; arrays stay on disk, memory-mapped.

    Args:
        verify: compare every file's checksum with the header's (reads the whole dataset once).

    Raises:
        DatasetError: missing, truncated, damaged or foreign data; the message names the file.
    """
    header_path = path / HEADER
    if not path.is_dir():
        raise DatasetError(f"{path}: no dataset here; make one with `vla collect`")
    if not header_path.is_file():
        raise DatasetError(f"{header_path}: missing, so this is no finished dataset; make one with `vla collect`")
    try:
        header = json.loads(header_path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{header_path}: not readable as JSON ({error}); collect the dataset again") from None
    version = header.get("schema_version") if isinstance(header, dict) else None
    if version != SCHEMA_VERSION:
        raise DatasetError(f"{header_path}: schema_version {version!r}, expected {SCHEMA_VERSION}")
    missing = {"files", "instructions", "task", "cameras", "action_names", "agent_pos_names"} - set(header)
    if missing:
        raise DatasetError(f"{header_path}: field {min(missing)!r} is missing; collect the dataset again")
    for name, kind in (("files", dict), ("instructions", list)):
        if not isinstance(header[name], kind):
            raise DatasetError(f"{header_path}: field {name!r} is no {kind.__name__}; collect the dataset again")
    arrays: dict[str, np.ndarray] = {}
    for name, dtype in ARRAYS.items():
        file = path / f"{name}.npy"
        expected = header["files"].get(file.name)
        if not isinstance(expected, dict) or not {"bytes", "sha256"} <= set(expected):
            raise DatasetError(f"{header_path}: file {file.name!r} is not listed; collect the dataset again")
        if not file.is_file():
            raise DatasetError(f"{file}: missing; collect the dataset again")
        if file.stat().st_size != expected["bytes"]:
            raise DatasetError(
                f"{file}: {file.stat().st_size} bytes, expected {expected['bytes']}; truncated or overwritten"
            )
        if verify and _checksum(file) != expected["sha256"]:
            raise DatasetError(f"{file}: checksum differs from {HEADER}; the file was damaged, collect it again")
        try:
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DatasetError(f"{file}: not a NumPy array file ({error})") from None
        if arrays[name].dtype != np.dtype(dtype) or arrays[name].ndim != _RANKS[name]:
            got = f"{arrays[name].dtype} with {arrays[name].ndim} axes"
            raise DatasetError(f"{file}: {got}, expected {dtype} with {_RANKS[name]}")
    offsets = arrays["offsets"]
    if len(offsets) < 2 or offsets[0] != 0 or np.any(np.diff(offsets) < 1):
        raise DatasetError(f"{path / 'offsets.npy'}: not an ascending list of first steps; collect the dataset again")
    for name in _PER_STEP:
        if len(arrays[name]) != offsets[-1]:
            raise DatasetError(f"{path / name}.npy: {len(arrays[name])} steps, offsets.npy says {offsets[-1]}")
    for name in _PER_EPISODE:
        if len(arrays[name]) != len(offsets) - 1:
            raise DatasetError(f"{path / name}.npy: {len(arrays[name])} episodes, offsets.npy says {len(offsets) - 1}")
    if len(header["instructions"]) != len(offsets) - 1:
        got = f"{len(header['instructions'])} instructions"
        raise DatasetError(f"{header_path}: {got}, offsets.npy says {len(offsets) - 1} episodes")
    objects = arrays["boxes"].shape[2]
    for name, axis in _OBJECT_AXIS.items():
        if arrays[name].shape[axis] != objects:
            raise DatasetError(f"{path / name}.npy: {arrays[name].shape[axis]} objects, boxes.npy has {objects}")
    for episode, texts in enumerate(header["instructions"]):
        if not isinstance(texts, list) or len(texts) != objects or not all(isinstance(t, str | None) for t in texts):
            raise DatasetError(f"{header_path}: instructions of episode {episode} are no {objects} texts or nulls")
        target = int(arrays["targets"][episode])
        if not 0 <= target < objects or texts[target] is None:
            raise DatasetError(f"{path / 'targets.npy'}: episode {episode} has target {target}, which no text names")
    return Dataset(path=path, header=header, arrays=arrays)


def _fresh_partial(path: Path) -> Path:
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _finish(partial: Path, path: Path, header: dict[str, Any], instructions: list[list[str | None]]) -> None:
    files = {
        f"{name}.npy": {
            "bytes": (partial / f"{name}.npy").stat().st_size,
            "sha256": _checksum(partial / f"{name}.npy"),
        }
        for name in ARRAYS
    }
    full = {"schema_version": SCHEMA_VERSION, **header, "files": files, "instructions": instructions}
    (partial / HEADER).write_text(json.dumps(full, indent=1))
    os.replace(partial, path)


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
