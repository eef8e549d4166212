"""Writes dataset folders, episode by episode; `training.data.episodes` says what is in them and reads them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from training.data.episodes import (
    ARRAYS,
    GOAL_LABELS,
    HEADER,
    LABELS,
    PER_EPISODE,
    PER_STEP,
    SCHEMA_VERSION,
    Dataset,
    DatasetError,
    Episode,
    checksum,
    header_checksum,
    read_interface,
    reason_of,
)
from training.lock import hold_file

PARTIAL = ".partial"
COPIED_ROWS = 256  # at a time, where datasets are joined


class DatasetWriter:
    """Writes a dataset episode by episode, so that memory does not grow with it.

    The folder appears under its name only when `finish` has written everything; until then it is called PATH.partial,
    and one that an earlier attempt left is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = Path(path)
        self._lock = hold_file(path)
        if path.exists():
            self._lock.release()
            raise DatasetError(f"{path}: is there already; choose another path, or remove it")
        self._partial = path.with_name(f"{path.name}{PARTIAL}")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._files: dict[str, _ArrayFile] = {}
        self._offsets, self._instructions = [0], list[list[str | None]]()

    def add(self, episode: Episode) -> None:
        """Append an episode.

        Raises:
            DatasetError: it does not fit the table of `training.data.episodes`, or the episodes before it.
        """
        if reason := _mistake(episode):
            raise DatasetError(f"{self.path}: episode of seed {episode.seed}: {reason}")
        arrays = {name: getattr(episode, name) for name in PER_STEP}
        arrays |= {"seeds": [episode.seed], "targets": [episode.target], "events": [episode.events]}
        self._append({name: np.asarray(rows) for name, rows in arrays.items() if rows is not None})
        self._offsets.append(self._offsets[-1] + len(episode))
        self._instructions.append(list(episode.instructions))

    def join(self, part: Dataset) -> None:
        """Append all episodes of a dataset of the same layout."""
        for first in range(0, part.steps, COPIED_ROWS):
            rows = slice(first, first + COPIED_ROWS)
            self._append({name: part.arrays[name][rows] for name in PER_STEP if name in part.arrays})
        self._append({name: part.arrays[name] for name in PER_EPISODE})
        self._offsets += (part.arrays["offsets"][1:] + self._offsets[-1]).tolist()
        self._instructions += part.instructions

    def finish(self, header: dict[str, Any]) -> None:
        """Write the header, and give the folder its name.

        Raises:
            DatasetError: there is no episode, or the header lacks a field or holds a wrong one.
        """
        if not self._instructions:
            raise DatasetError(f"{self.path}: no episode to write")
        missing = {"task", "control_hz"} - set(header)
        try:
            if missing:
                raise KeyError(min(missing))
            read_interface(header)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{self.path}: the header does not describe the robot: {reason_of(error)}") from None
        self._append({"offsets": np.array(self._offsets)})
        self._close_files()
        files = {}
        for name in (name for name in ARRAYS if name in self._files):
            file = self._partial / f"{name}.npy"
            files[file.name] = {"bytes": file.stat().st_size, "sha256": checksum(file)}
        full = {"schema_version": SCHEMA_VERSION, **header, "files": files, "instructions": self._instructions}
        full["sha256"] = header_checksum(full)
        (self._partial / HEADER).write_text(json.dumps(full, indent=1))
        os.replace(self._partial, self.path)
        self._lock.release()

    def close(self) -> None:
        self._close_files()
        self._lock.release()

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, arrays: dict[str, np.ndarray]) -> None:
        labels = [name for name in (*LABELS, *GOAL_LABELS) if (name in arrays) != (name in self._files)]
        if labels and self._instructions and "pixels" in arrays:
            raise DatasetError(f"{self.path}: {labels[0]} must be there in all episodes or in none")
        for name, rows in arrays.items():
            if name not in self._files:
                self._files[name] = _ArrayFile(self._partial / f"{name}.npy", np.dtype(ARRAYS[name]), rows.shape[1:])
            self._files[name].append(rows)


def _mistake(episode: Episode) -> str:
    """Why an episode cannot be written, empty if it can."""
    if episode.pixels.dtype != np.uint8:
        return f"pixels are {episode.pixels.dtype}, expected uint8"
    if not len(episode):
        return "it has no steps"
    if (episode.boxes is None) != (episode.visible is None):
        return "boxes and visible must both be there or neither"
    goals = episode.goal_boxes is not None
    if goals != (episode.goal_visible is not None) or (goals and episode.boxes is None):
        return "goal_boxes and goal_visible must both be there or neither, and only beside boxes"
    things = episode.action.shape[1] if episode.action.ndim == 4 else 0
    if not things or episode.events.shape != (things, 2) or len(episode.instructions) != things:
        shapes = (
            f"action {episode.action.shape}, events {episode.events.shape}, {len(episode.instructions)} instructions"
        )
        return f"{shapes}; expected action (K, O, S, A), events (O, 2) and O instructions"
    texts = episode.instructions
    if not all(text is None or isinstance(text, str) for text in texts):
        return f"instructions {texts!r} must be texts, or None where no words single a thing out"
    target: Any = episode.target
    if not isinstance(target, int | np.integer) or not 0 <= target < things or not texts[target]:
        return f"target {target!r} must be one of the {things} things, and have an instruction"
    if not np.isfinite(episode.agent_pos).all():
        return "agent_pos must be finite"
    for name, boxes in (("boxes", episode.boxes), ("goal_boxes", episode.goal_boxes)):
        if boxes is not None and not (boxes.shape[-1:] == (4,) and _in_picture(boxes)):
            return f"{name} {boxes.shape} must be (cx, cy, w, h) in [0, 1] of the picture"
    for name in PER_STEP:
        rows = getattr(episode, name)
        if rows is not None and len(rows) != len(episode):
            return f"{len(rows)} steps of {name}, {len(episode)} of pixels"
    for name in ("action", "executed"):
        values = getattr(episode, name)
        if not (np.abs(values) <= 1 + 1e-5).all():
            return f"{name} must lie in [-1, 1]; see envs.task.ActionScale"
    return ""


def _in_picture(boxes: np.ndarray) -> bool:
    return bool(((boxes >= -1e-6) & (boxes <= 1 + 1e-6)).all())


class _ArrayFile:
    """A `.npy` file that grows: NumPy pads the header, so that the number of rows can be put in afterwards."""

    def __init__(self, path: Path, dtype: np.dtype[Any], row: tuple[int, ...]) -> None:
        self._path, self._dtype, self._row, self._rows = path, dtype, row, 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        if rows.shape[1:] != self._row:
            raise DatasetError(f"{self._path}: got rows of {rows.shape[1:]}, the first ones were {self._row}")
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self._rows += len(rows)

    def close(self) -> None:
        if not self._file.closed:
            self._file.seek(0)
            self._write_header()
            self._file.close()

    def _write_header(self) -> None:
        shape = (self._rows, *self._row)
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, described)


def write_dataset(path: Path, episodes: Sequence[Episode], header: dict[str, Any]) -> None:
    """Write episodes as a dataset folder, atomically: the folder appears under its name only when complete."""
    with DatasetWriter(path) as writer:
        for episode in episodes:
            writer.add(episode)
        writer.finish(header)


def merge_datasets(path: Path, parts: Sequence[Dataset], header: dict[str, Any]) -> None:
    """Join datasets of the same layout into one."""
    with DatasetWriter(path) as writer:
        for part in parts:
            writer.join(part)
        writer.finish(header)
