"""Writes dataset folders, episode by episode; `training.data.episodes` says what is in them and reads them.

N steps, E episodes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from configs.disk import filling, require_room
from configs.reading import parse_json
from training.data.episodes import (
    ARRAYS,
    GOAL_LABELS,
    HEADER,
    LABELS,
    NAMED_AXES,
    PER_EPISODE,
    PER_STEP,
    PICTURES,
    RANKS,
    SCHEMA_VERSION,
    THING_AXIS,
    Dataset,
    DatasetError,
    Episode,
    are_pictures,
    checksum,
    header_checksum,
    read_interface,
    reason_of,
)
from training.lock import hold_file

PARTIAL = ".partial"
JOURNAL = "journal.jsonl"  # of a partial dataset: its header's checksum, then a line for each whole episode
KEPT = "Whole episodes are kept, and the same work goes on from there"
COPIED_ROWS = 256  # at a time, where datasets are joined


class OtherHeaderError(DatasetError):
    """What was left was written with another header."""


class DatasetWriter:
    """Writes a dataset episode by episode, so that memory does not grow with it.

    The folder appears under its name only when `finish` has written everything; until then it is called PATH.partial.
    Every episode that `add` has returned from is safe there, however the process ends, and a writer with `resume` goes
    on with it.

    Args:
        header: what the dataset says of itself. Given here, a mistake in it comes to light before the work.
        resume: go on with the episodes that a writer with the same header left. They are never thrown away: without
            `resume` or with another header, a writer refuses to begin.
        origin: what else must be the same for that, such as where the episodes come from; the dataset does not say it.

    Raises:
        DatasetError: there is a dataset already, or episodes that nobody finished, or the header lacks a field.
        OtherHeaderError: the episodes that are to be gone on with were written with another header or origin.
        LockedError: another writer is at it.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path = Path(path)
        self._header = None if header is None else _checked(path, header)
        # What a journal that is gone on with must begin with.
        self._begun_with = header_checksum({**(self._header or {}), **({"origin": dict(origin)} if origin else {})})
        self._partial = path.with_name(f"{path.name}{PARTIAL}")
        self._files: dict[str, _ArrayFile] = {}
        self._offsets, self._instructions = [0], list[list[str | None]]()
        self._seeds: dict[int, None] = {}
        self._lock = hold_file(path)
        try:
            if path.exists():
                raise DatasetError(f"{path}: is there already; choose another path, or remove it")
            if kept := _journal(self._partial):
                if not resume:
                    raise DatasetError(
                        f"{self._partial}: holds {len(kept) - 1} whole episodes that nobody finished; go on with "
                        "DatasetWriter(..., resume=True), or remove the folder"
                    )
                self._go_on(kept)
            if not self._instructions:
                shutil.rmtree(self._partial, ignore_errors=True)
                self._partial.mkdir(parents=True)
        except BaseException:
            self.close()
            raise

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the episodes so far."""
        return tuple(self._seeds)

    def add(self, episode: Episode) -> None:
        """Append an episode.

        Raises:
            DatasetError: it does not fit the table of `training.data.episodes`, or the episodes before it.
            DiskFullError: there is no room for it; those before it are kept.
        """
        if reason := _mistake(episode) or _misfit(episode, self._header or {}):
            raise DatasetError(f"{self.path}: episode of seed {episode.seed}: {reason}")
        if episode.seed in self._seeds:
            raise DatasetError(f"{self.path}: episode of seed {episode.seed}: there is one of this seed already")
        arrays = {name: getattr(episode, name) for name in PER_STEP}
        arrays |= {"seeds": [episode.seed], "targets": [episode.target], "events": [episode.events]}
        self._append({name: np.asarray(rows) for name, rows in arrays.items() if rows is not None})
        self._offsets.append(self._offsets[-1] + len(episode))
        self._instructions.append(list(episode.instructions))
        self._seeds[int(episode.seed)] = None
        self._note({"seed": int(episode.seed), "steps": len(episode), "instructions": self._instructions[-1]})

    def join(self, parts: Sequence[Dataset]) -> None:
        """Append all episodes of datasets of the same layout.

        Raises:
            DiskFullError: there is no room for them, which is said before anything is written.
        """
        needed: dict[str, list[np.ndarray]] = {}
        for name in (*PER_STEP, *PER_EPISODE):
            if all(name in part.arrays for part in parts):
                needed[name] = [part.arrays[name] for part in parts]
        size = sum(array.nbytes for arrays in needed.values() for array in arrays)
        require_room(self._partial, size, f"a dataset of {sum(part.episodes for part in parts)} episodes", KEPT)
        for name, arrays in needed.items():
            self._file(name, arrays[0].shape[1:]).reserve(sum(len(array) for array in arrays))
        for part in parts:
            for first in range(0, part.steps, COPIED_ROWS):
                rows = slice(first, first + COPIED_ROWS)
                self._append({name: part.arrays[name][rows] for name in PER_STEP if name in part.arrays})
            self._append({name: part.arrays[name] for name in PER_EPISODE})
            self._offsets += (part.arrays["offsets"][1:] + self._offsets[-1]).tolist()
            self._instructions += part.instructions
            self._seeds |= dict.fromkeys(part.arrays["seeds"].tolist())

    def finish(self, header: Mapping[str, Any] | None = None) -> None:
        """Write the header, and give the folder its name.

        Args:
            header: fields beside those that the writer was made with.

        Raises:
            DatasetError: there is no episode, or the header lacks a field or holds a wrong one. Nothing is lost then:
                call it again with a right one, or go on with another writer.
            DiskFullError: there is no room; the episodes are kept.
        """
        if not self._instructions:
            raise DatasetError(f"{self.path}: no episode to write")
        full = _checked(self.path, {**(self._header or {}), **(header or {})})
        lengths = np.diff(self._offsets).tolist()
        offsets = self._file("offsets", ())
        offsets.truncate(0)  # of a call that failed after it
        self._append({"offsets": np.array(self._offsets)})
        self._close_files()
        files = {}
        for name in (name for name in ARRAYS if name in self._files):
            file = self._partial / f"{name}.npy"
            files[file.name] = {"bytes": file.stat().st_size, "sha256": checksum(file)}
        described = {"files": files, "steps": lengths, "instructions": self._instructions}
        full = {"schema_version": SCHEMA_VERSION, **full, **described}
        full["sha256"] = header_checksum(full)
        with filling(self._partial / HEADER, KEPT):
            (self._partial / HEADER).write_text(json.dumps(full, indent=1))
        (self._partial / JOURNAL).unlink(missing_ok=True)
        os.replace(self._partial, self.path)
        self._lock.release()

    def discard(self) -> None:
        """End the work, and remove what was written of an unfinished dataset."""
        self._close_files()
        shutil.rmtree(self._partial, ignore_errors=True)
        self._lock.release()

    def close(self) -> None:
        """End the work; an unfinished dataset can be gone on with."""
        self._close_files()
        self._lock.release()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()

    def _file(self, name: str, row: tuple[int, ...]) -> _ArrayFile:
        if name not in self._files:
            self._files[name] = _ArrayFile(self._partial / f"{name}.npy", np.dtype(ARRAYS[name]), row)
        return self._files[name]

    def _append(self, arrays: dict[str, np.ndarray]) -> None:
        labels = [name for name in (*LABELS, *GOAL_LABELS) if (name in arrays) != (name in self._files)]
        if labels and self._instructions and "pixels" in arrays:
            raise DatasetError(f"{self.path}: {labels[0]} must be there in all episodes or in none")
        before = {name: file.rows for name, file in self._files.items()}
        try:
            for name, rows in arrays.items():
                self._file(name, rows.shape[1:]).append(rows)
        except (OSError, DatasetError):
            for name in list(self._files):  # all or none
                if name in before:
                    self._files[name].truncate(before[name])
                else:
                    self._files.pop(name).remove()
            raise

    def _note(self, line: dict[str, Any]) -> None:
        """Write down that an episode is whole, after its arrays."""
        with filling(self._partial / JOURNAL, KEPT), (self._partial / JOURNAL).open("a") as file:
            if not file.tell():
                file.write(json.dumps({"header": self._begun_with}) + "\n")
            file.write(json.dumps(line) + "\n")

    def _go_on(self, kept: list[dict[str, Any]]) -> None:
        """Take over what a writer left: all episodes that are whole in every file."""
        if kept[0].get("header") != self._begun_with:
            raise OtherHeaderError(
                f"{self._partial}: holds {len(kept) - 1} whole episodes with another header or from elsewhere; give "
                "the same settings and source, or remove the folder"
            )
        ends = np.cumsum([line["steps"] for line in kept[1:]])
        files = {}
        whole = len(ends)
        for name in (*PER_STEP, *PER_EPISODE):
            if (self._partial / f"{name}.npy").is_file():
                files[name] = file = _ArrayFile.opened(self._partial / f"{name}.npy", np.dtype(ARRAYS[name]))
                there = np.searchsorted(ends, file.rows, side="right") if name in PER_STEP else file.rows
                whole = min(whole, int(there))
        lines = kept[1 : 1 + whole]
        for name, file in files.items():
            file.truncate((int(ends[whole - 1]) if whole else 0) if name in PER_STEP else whole)
        self._files = files
        for line in lines:
            self._seeds[line["seed"]] = None
            self._instructions.append(line["instructions"])
            self._offsets.append(self._offsets[-1] + line["steps"])
        # Lines that were cut short, or whose arrays are not there, must not stand before what comes next.
        (self._partial / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in [kept[0], *lines]))


def _journal(partial: Path) -> list[dict[str, Any]]:
    """What an unfinished dataset says of itself: its header's checksum and its whole episodes; empty without any."""
    try:
        text = (partial / JOURNAL).read_text()
    except OSError:
        return []
    lines: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            lines.append(parse_json(line))
        except ValueError:  # the last one, cut short
            break
    return lines if len(lines) > 1 else []


def _checked(path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """A header that says all that it must.

    Raises:
        DatasetError: it does not.
    """
    missing = {"task", "control_hz"} - set(header)
    try:
        if missing:
            raise KeyError(min(missing))
        if not isinstance(header["task"], str) or not header["task"]:
            raise TypeError(f"task {header['task']!r} must be a name")
        read_interface(dict(header))
        json.dumps(dict(header), allow_nan=False)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: the header does not describe the robot: {reason_of(error)}") from None
    return dict(header)


def _mistake(episode: Episode) -> str:
    """Why an episode cannot be written, empty if it can."""
    if episode.pixels.dtype != np.uint8:
        return f"pixels are {episode.pixels.dtype}, expected uint8"
    if episode.pixels.ndim != 5 or not are_pictures(episode.pixels):
        return f"pixels are {episode.pixels.shape}, expected {PICTURES}"
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
    seed: Any = episode.seed
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        return "its seed must be a whole number from 0 to 2^63"
    begin, end = episode.events[:, 0], episode.events[:, 1]
    if ((begin < 0) | (end < begin) | (end > len(episode))).any():
        return f"events {episode.events.tolist()} must be parts of its {len(episode)} steps"
    if not np.isfinite(episode.agent_pos).all():
        return "agent_pos must be finite"
    for name, boxes in (("boxes", episode.boxes), ("goal_boxes", episode.goal_boxes)):
        if boxes is not None and not (boxes.shape[-1:] == (4,) and _in_picture(boxes)):
            return f"{name} {boxes.shape} must be (cx, cy, w, h) in [0, 1] of the picture"
    for name in PER_STEP:
        rows = getattr(episode, name)
        if rows is not None and (rows.ndim != RANKS[name] or len(rows) != len(episode)):
            return f"{name} {rows.shape} must have {RANKS[name]} axes, of which the first is {len(episode)} steps"
        if rows is not None and name in THING_AXIS and rows.shape[THING_AXIS[name]] != things:
            return f"{name} {rows.shape} must have the {things} things of action"
    for name in ("action", "executed"):
        values = getattr(episode, name)
        if not (np.abs(values) <= 1 + 1e-5).all():
            return f"{name} must lie in [-1, 1]; see envs.task.ActionScale"
    return ""


def _misfit(episode: Episode, header: Mapping[str, Any]) -> str:
    """In what an episode is not of the robot that a header tells of, empty if in nothing."""
    for name, axis, names in NAMED_AXES:
        got = getattr(episode, name).shape[axis]
        if names in header and got != len(header[names]):
            return f"{name} has {got} of {names}, the header names {len(header[names])}"
    return ""


def _in_picture(boxes: np.ndarray) -> bool:
    return bool(((boxes >= -1e-6) & (boxes <= 1 + 1e-6)).all())


class _ArrayFile:
    """A `.npy` file that grows: NumPy pads the header, so that the number of rows can be put in afterwards.

    Written with plain writes, never through memory: a disk that is full then says so, and does not end the process.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], row: tuple[int, ...], *, rows: int = 0) -> None:
        self._path, self._dtype, self._row, self.rows = path, dtype, row, rows
        self._row_bytes = dtype.itemsize * int(np.prod(row))
        with filling(path, KEPT):
            self._file = path.open("r+b" if rows else "w+b", buffering=0)
            try:
                self._write_header()
            except BaseException:
                self._file.close()
                raise
        self._start = self._file.tell()

    def remove(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    @classmethod
    def opened(cls, path: Path, dtype: np.dtype[Any]) -> _ArrayFile:
        """A file that an earlier writer left, with all rows that are whole.

        Raises:
            DatasetError: it is none.
        """
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, _, found = np.lib.format.read_array_header_1_0(file)
                rows = (path.stat().st_size - file.tell()) // (dtype.itemsize * int(np.prod(shape[1:])))
        except (ValueError, ZeroDivisionError) as error:
            raise DatasetError(f"{path}: not what a writer left ({error}); remove the folder") from None
        if found != dtype:
            raise DatasetError(f"{path}: holds {found}, expected {dtype}; remove the folder")
        return cls(path, dtype, shape[1:], rows=rows)

    def append(self, rows: np.ndarray) -> None:
        if rows.shape[1:] != self._row:
            raise DatasetError(f"{self._path}: got rows of {rows.shape[1:]}, the first ones were {self._row}")
        self._reopen()
        self._file.seek(self._start + self.rows * self._row_bytes)
        with filling(self._path, KEPT):
            if rows.size:
                self._write(np.ascontiguousarray(rows, self._dtype).data.cast("B"))
        self.rows += len(rows)

    def reserve(self, rows: int) -> None:
        """Take the room for so many rows now."""
        with filling(self._path, KEPT):
            os.posix_fallocate(self._file.fileno(), self._start, max(rows * self._row_bytes, 1))

    def _reopen(self) -> None:
        """After a `close` that was not the end: what was to come after it failed."""
        if self._file.closed:
            self._file = self._path.open("r+b", buffering=0)

    def truncate(self, rows: int) -> None:
        """Forget what lies behind so many rows."""
        self.rows = rows
        self._reopen()
        self._file.truncate(self._start + rows * self._row_bytes)

    def close(self) -> None:
        if not self._file.closed:
            self._file.truncate(self._start + self.rows * self._row_bytes)
            self._file.seek(0)
            self._write_header()
            self._file.close()

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]

    def _write_header(self) -> None:
        shape = (self.rows, *self._row)
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        header = BytesIO()
        np.lib.format.write_array_header_1_0(header, described)
        self._write(header.getbuffer())


def write_dataset(path: Path, episodes: Sequence[Episode], header: dict[str, Any]) -> None:
    """Write episodes as a dataset folder, atomically: the folder appears under its name only when complete."""
    with DatasetWriter(path, header) as writer, _all_or_nothing(writer):
        for episode in episodes:
            writer.add(episode)
        writer.finish()


def merge_datasets(path: Path, parts: Sequence[Dataset], header: dict[str, Any]) -> None:
    """Join datasets of the same layout into one.

    Raises:
        DiskFullError: there is no room for it, which is said before anything is written.
    """
    with DatasetWriter(path, header) as writer, _all_or_nothing(writer):
        writer.join(parts)
        writer.finish()


@contextmanager
def _all_or_nothing(writer: DatasetWriter) -> Iterator[None]:
    """Whoever has all of the data elsewhere wants no half of it here."""
    try:
        yield
    except BaseException:
        writer.discard()
        raise
