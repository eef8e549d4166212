"""Writes dataset folders, episode by episode; `training.data.episodes` says what is in them and reads them.

N steps, E episodes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from configs.disk import filling, require_room
from configs.reading import parse_json
from training.data.array_file import KEPT, ArrayFile
from training.data.episode_checks import checked_header, misfit_of, mistake_in
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
)
from training.lock import hold_file

PARTIAL = ".partial"
JOURNAL = "journal.jsonl"  # of a partial dataset: its header's checksum, then a line for each whole episode
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
        self._header = None if header is None else checked_header(path, header)
        # What a journal that is gone on with must begin with.
        self._begun_with = header_checksum({**(self._header or {}), **({"origin": dict(origin)} if origin else {})})
        self._partial = path.with_name(f"{path.name}{PARTIAL}")
        self._files: dict[str, ArrayFile] = {}
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
        if reason := mistake_in(episode) or misfit_of(episode, self._header or {}):
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
        full = checked_header(self.path, {**(self._header or {}), **(header or {})})
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

    def _file(self, name: str, row: tuple[int, ...]) -> ArrayFile:
        if name not in self._files:
            self._files[name] = ArrayFile(self._partial / f"{name}.npy", np.dtype(ARRAYS[name]), row)
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
                files[name] = file = ArrayFile.opened(self._partial / f"{name}.npy", np.dtype(ARRAYS[name]))
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
