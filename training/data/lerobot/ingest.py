"""Reads a dataset of LeRobot's format v3.0 into ours, episode by episode."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.disk import in_words
from configs.lerobot import ImportConfig
from configs.memory import available_memory
from training.data.episodes import Dataset, DatasetError, open_dataset
from training.data.lerobot import layout
from training.data.lerobot.layout import DAMAGED, EpisodeEntry, Info
from training.data.lerobot.readers import Foreign, Reader, Recorded, Returning, runs
from training.data.lerobot.video import VideoReader
from training.data.writer import DatasetWriter

OnProgress = Callable[[int, int], None]  # frames done, all


def import_lerobot(source: Path, out: Path, config: ImportConfig, *, on_progress: OnProgress | None = None) -> Dataset:
    """Read a dataset of LeRobot's into a folder of ours; an interrupted import goes on where it stopped.

    Raises:
        DatasetError: the dataset is of another version, damaged, or cannot be had so; the message names the file.
        DiskFullError: there is no room; the whole episodes are kept.
        LockedError: another process writes there.
    """
    layout.require_pyarrow()
    info = layout.read_info(source)
    reader = Foreign(info, config) if not (source / layout.OURS).is_file() else Returning(info, config)
    origin = {"source": layout.fingerprint(info), "options": repr(config)}
    with DatasetWriter(out, reader.header, resume=True, origin=origin) as writer:
        done = 0
        there = frozenset(writer.seeds)
        for recorded in _recordings(info, reader, there):
            for episode in reader.episodes(recorded):
                if episode.seed not in there:
                    writer.add(episode)
            done += recorded.entry.length
            if on_progress:
                on_progress(done, info.total_frames)
        writer.finish()
    return open_dataset(out, verify=False)


def _recordings(info: Info, reader: Reader, there: frozenset[int]) -> Iterator[Recorded]:
    """Episodes with their columns and pictures, in the order of their files, without those that are there already."""
    entries = {entry.number: entry for entry in layout.read_episodes(info)}
    with ExitStack() as stack:
        videos = _VideoFiles(info, stack)
        for recorded in _rows_by_episode(info, reader, entries):
            entry, frames = recorded.entry, recorded.column("frame_index")
            where = f"{info.root}: episode {entry.number}"
            if len(frames) != entry.length or (np.diff(frames) != 1).any():
                got = f"{len(frames)} rows" if len(frames) != entry.length else "rows out of order"
                raise _other_length(info, entry, got)
            times = recorded.column("timestamp").astype(np.float64)
            if not there.issuperset(reader.seeds(recorded)):
                for key in filter(info.is_video, reader.cameras):
                    chunk, file, start = entry.videos[key]
                    found = videos.open(key, chunk, file).frames((start + times).tolist())
                    recorded.pictures[key] = [reader.fitted(frame, where) for frame in found]
                yield recorded
            recorded.pictures.clear()


class _VideoFiles:
    """One open video for each camera."""

    def __init__(self, info: Info, stack: ExitStack) -> None:
        self._info, self._open = info, dict[str, tuple[tuple[int, int], VideoReader]]()
        stack.callback(self._close)

    def open(self, key: str, chunk: int, file: int) -> VideoReader:
        place, reader = self._open.get(key, (None, None))
        if reader is None or place != (chunk, file):
            if reader is not None:
                reader.close()
            reader = VideoReader(self._info.video_file(key, chunk, file), self._info.fps)
            self._open[key] = ((chunk, file), reader)
        return reader

    def _close(self) -> None:
        for _, reader in self._open.values():
            reader.close()


def _rows_by_episode(info: Info, reader: Reader, entries: dict[int, EpisodeEntry]) -> Iterator[Recorded]:
    """The rows of all data files, put together to episodes."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(layout.INDICES, (1,)) | reader.vectors
    images = [key for key in reader.cameras if not info.is_video(key)]
    current: Recorded | None = None
    seen: set[int] = set()
    for path in dict.fromkeys(info.data_file(*entry.data) for entry in entries.values()):
        for batch in layout.batches_of(path, [*shapes, *images]):
            columns = {name: layout.numbers(batch, name, shape, path) for name, shape in shapes.items()}
            for name in layout.INDICES:
                columns[name] = columns[name][:, 0]
            for rows in runs(columns["episode_index"]):
                number = int(columns["episode_index"][rows.start])
                if current is None or current.entry.number != number:
                    if current is not None:
                        yield current
                    if number not in entries or number in seen:
                        why = "in two places" if number in seen else "not in meta/episodes"
                        raise DatasetError(f"{path}: episode {number} is {why}; {DAMAGED}")
                    seen.add(number)
                    current = Recorded(entry=entries[number])
                    _require_memory(info, reader, current.entry)
                rows_there = sum(map(len, current.columns.get("index", []))) + rows.stop - rows.start
                if rows_there > current.entry.length:
                    raise _other_length(info, current.entry, f"{rows_there} rows or more")
                for name, values in columns.items():
                    current.columns.setdefault(name, []).append(values[rows])
                for key in images:
                    decoded = _decoded(batch.column(key).slice(rows.start, rows.stop - rows.start), key, path)
                    where = f"{path}: episode {number}"
                    current.pictures.setdefault(key, []).extend(reader.fitted(p, where) for p in decoded)
    if current is not None:
        yield current
    if missing := set(entries) - seen:
        raise DatasetError(f"{info.root}: episode {min(missing)} has no rows in data/; {DAMAGED}")


def _other_length(info: Info, entry: EpisodeEntry, got: str) -> DatasetError:
    where = f"{info.root}: episode {entry.number}"
    return DatasetError(f"{where}: {got}, its entry in meta/episodes says {entry.length}; {DAMAGED}")


def _require_memory(info: Info, reader: Reader, entry: EpisodeEntry) -> None:
    """Refuse an episode whose pictures, of which there are two copies for a while, do not fit into memory.

    Raises:
        DatasetError: they do not; the message says what to lower.
    """
    height, width = reader.picture
    needed = 2 * entry.length * len(reader.cameras) * height * width * 3
    there = available_memory()
    if there is not None and needed > there:
        pictures = f"{entry.length} pictures of each of {len(reader.cameras)} cameras, {height} x {width}"
        raise DatasetError(
            f"{info.root}: episode {entry.number} has {pictures}, which need {in_words(needed)} of memory, "
            f"{in_words(there)} are available; lower --size, or name fewer --cameras"
        )


def _decoded(column: Any, key: str, path: Path) -> Iterator[np.ndarray]:
    """The pictures of a column of PNG or JPEG files."""
    for value in layout.values_of(column, key, path):
        content = value.get("bytes") if isinstance(value, dict) else None
        if not isinstance(content, bytes):
            raise DatasetError(f"{path}: column {key!r} has a row without a picture; {DAMAGED}")
        try:
            with Image.open(io.BytesIO(content)) as picture:
                if max(picture.size) > layout.LARGEST:
                    raise ValueError(f"it has {picture.size[0]} x {picture.size[1]} pixels")
                yield np.asarray(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            said = " ".join(str(error).split())
            raise DatasetError(f"{path}: column {key!r} has an unreadable picture ({said}); {DAMAGED}") from None
