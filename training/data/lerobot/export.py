"""Writes a dataset in LeRobot's format v3.0, episode by episode: `training.data.lerobot.layout` says what is where.

LeRobot's `action` is the label of what the instruction asked for. All else that a dataset of ours holds goes along as
`vla.NAME`: plans, what was executed, boxes, seeds, what every thing of the scene is called. So nothing is lost on the
way back.

n steps of an episode, V cameras, H W picture, O things, S steps of a plan, A actions, P proprioception.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from configs.disk import filling, replace_folder
from training.data.episodes import CHECKED_ROWS, GOAL_LABELS, HEADER, LABELS, Dataset, DatasetError
from training.data.lerobot import layout
from training.data.lerobot.scale import Scale
from training.data.lerobot.statistics import Histogram, PictureHistogram, describe
from training.data.lerobot.video import CODEC, PIXELS, VideoWriter
from training.lock import hold_file

Pictures = Literal["video", "png"]
OnProgress = Callable[[int, int], None]  # episodes done, all
FLUSHED = 100  # episodes whose rows are in memory at a time
MEGABYTE = 1024**2
# Of a header, what the arrays say again on the way back.
DERIVED = ("files", "steps", "instructions", "sha256", "schema_version")


def export_lerobot(
    data: Dataset, out: Path, *, pictures: Pictures = "video", on_progress: OnProgress | None = None
) -> None:
    """Write a dataset to a folder, which appears under its name only when it is whole.

    Args:
        pictures: as videos (H.264: small, with the codec's errors) or as PNG (exact).

    Raises:
        DatasetError: there is something already, or LeRobot's format cannot hold the dataset.
        DiskFullError: there is no room; nothing is left behind.
        LockedError: another process writes there.
    """
    layout.require_pyarrow()
    rate = data.interface.control_hz
    if rate is None:
        raise DatasetError(f"{data.path}: {HEADER} has no control_hz, which LeRobot needs as its fps; collect it again")
    if wrong := next((name for name in data.interface.cameras if "/" in name), None):
        raise DatasetError(f"{data.path}: camera {wrong!r} has a '/', which LeRobot's names of features must not have")
    lock = hold_file(out)
    try:
        if out.exists():
            raise DatasetError(f"--out {out}: is there already; choose another place, or remove it")
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with filling(partial):
                _Export(data, partial, pictures, Fraction(rate).limit_denominator(1001)).write(on_progress)
            replace_folder(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        lock.release()


class _Export:
    def __init__(self, data: Dataset, root: Path, pictures: Pictures, fps: Fraction) -> None:
        self._data, self._root, self._as_video, self._fps = data, root, pictures == "video", fps
        self._arrays, self._offsets = data.arrays, data.arrays["offsets"]
        self._scale = Scale.from_header(data.header)
        self._cameras = {f"{layout.PICTURES}{name}": i for i, name in enumerate(data.interface.cameras)}
        # Those of the demonstrated things: other things' words are nobody's task.
        told = [texts[target] for texts, target in zip(data.instructions, self._arrays["targets"], strict=True)]
        self._tasks = {str(text): index for index, text in enumerate(dict.fromkeys(told))}
        self._told = [str(text) for text in told]
        self._own = self._own_columns()

    def _own_columns(self) -> list[str]:
        """Arrays of ours whose rows go along. Where one thing has one label a step, that is LeRobot's action."""
        action, executed = self._arrays["action"], self._arrays["executed"]
        names = [name for name in (*LABELS, *GOAL_LABELS) if name in self._arrays]
        starts = range(0, len(executed), CHECKED_ROWS)
        if action.shape[1:3] != (1, 1):
            return ["action", "executed", *names]
        same = all(np.array_equal(action[i : i + CHECKED_ROWS, 0, 0], executed[i : i + CHECKED_ROWS]) for i in starts)
        return names if same else ["executed", *names]

    def write(self, on_progress: OnProgress | None) -> None:
        episodes = self._data.episodes
        spreads = self._ranges()
        seen = {key: PictureHistogram() for key in self._cameras}
        with ExitStack() as stack:
            frames = stack.enter_context(_Tables(self._root, layout.DATA, layout.DATA_MB))
            entries = stack.enter_context(_Tables(self._root, layout.EPISODES, layout.DATA_MB))
            videos = {key: stack.enter_context(_Videos(self._root, key, self._fps)) for key in self._cameras}
            waiting: list[dict[str, Any]] = []
            for number in range(episodes):
                rows = self._rows(number)
                vectors = self._vectors(number)
                statistics: dict[str, Any] = {name: describe(values) for name, values in vectors.items()}
                for name, spread in spreads.items():
                    spread.add(vectors[name])
                entry: dict[str, Any] = {
                    "episode_index": number,
                    "tasks": [self._told[number]],
                    "length": rows.stop - rows.start,
                    "dataset_from_index": rows.start,
                    "dataset_to_index": rows.stop,
                    layout.OWN + "seed": int(self._arrays["seeds"][number]),
                    layout.OWN + "target": int(self._arrays["targets"][number]),
                    layout.OWN + "events": self._arrays["events"][number].tolist(),
                    layout.OWN + "instructions": self._data.header["instructions"][number],
                }
                of_episode = {key: PictureHistogram() for key in self._cameras}
                entry["data/chunk_index"], entry["data/file_index"] = frames.begin()
                if self._as_video:
                    for video in videos.values():
                        entry |= video.begin(rows.stop - rows.start)
                for part in _parts(rows):
                    table = self._table(vectors, part, rows.start)
                    for key, camera in self._cameras.items():
                        pictures = self._arrays["pixels"][part, camera]
                        of_episode[key].add(pictures)
                        if self._as_video:
                            for picture in pictures:
                                videos[key].add(picture)
                        else:
                            table[key] = _png_column(pictures, part.start - rows.start)
                    frames.write(table)
                for key, histogram in of_episode.items():
                    statistics[key] = histogram.describe()
                    seen[key].merge(histogram)
                entry |= {f"stats/{name}/{k}": v for name, found in statistics.items() for k, v in found.items()}
                entry["meta/episodes/chunk_index"], entry["meta/episodes/file_index"] = entries.begin()
                waiting.append(entry)
                if len(waiting) == FLUSHED or number == episodes - 1:
                    entries.write({name: [row[name] for row in waiting] for name in waiting[0]})
                    waiting.clear()
                if on_progress:
                    on_progress(number + 1, episodes)
            self._write_meta(spreads, seen)

    def _rows(self, number: int) -> slice:
        return slice(int(self._offsets[number]), int(self._offsets[number + 1]))

    def _vectors(self, number: int) -> dict[str, np.ndarray]:
        """What every frame of an episode has besides pictures, each (n, d)."""
        rows = self._rows(number)
        count, target = rows.stop - rows.start, self._arrays["targets"][number]
        frame = np.arange(count)
        columns = {
            "timestamp": (frame / float(self._fps)).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(count, number),
            "index": rows.start + frame,
            "task_index": np.full(count, self._tasks[self._told[number]]),
        }
        return {
            layout.ACTION: self._scale.to_source(self._arrays["action"][rows, target, 0]),
            layout.STATE: np.asarray(self._arrays["agent_pos"][rows]),
            **{name: column[:, None] for name, column in columns.items()},
        }

    def _ranges(self) -> dict[str, Histogram]:
        """Empty histograms over the range of each vector, which is looked for first."""
        low: dict[str, np.ndarray] = {}
        high: dict[str, np.ndarray] = {}
        for number in range(self._data.episodes):
            for name, values in self._vectors(number).items():
                low[name] = np.minimum(low.get(name, values[0]), values.min(axis=0))
                high[name] = np.maximum(high.get(name, values[0]), values.max(axis=0))
        return {name: Histogram(low[name], high[name]) for name in low}

    def _table(self, vectors: dict[str, np.ndarray], part: slice, first: int) -> dict[str, Any]:
        here = slice(part.start - first, part.stop - first)
        columns = {name: values[here] for name, values in vectors.items()}
        own = {layout.OWN + name: np.asarray(self._arrays[name][part]) for name in self._own}
        return {name: _column(values) for name, values in (columns | own).items()}

    def _write_meta(self, spreads: dict[str, Histogram], seen: dict[str, PictureHistogram]) -> None:
        import pyarrow
        from pyarrow import parquet

        statistics = {name: found.describe() for name, found in (spreads | seen).items()}
        header = {name: value for name, value in self._data.header.items() if name not in DERIVED}
        for path, content in (
            (layout.INFO, self._info()),
            (layout.STATS, statistics),
            (layout.OURS, {"header": header, "columns": self._own}),
        ):
            (self._root / path).write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n")
        tasks = pyarrow.table({"task_index": list(self._tasks.values()), "task": list(self._tasks)})
        # LeRobot reads this table with pandas, with the texts as its index.
        kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
        pandas = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": [
                {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
                for name, (kind, numpy) in kinds.items()
            ],
            "pandas_version": "2.0.0",
        }
        tasks = tasks.replace_schema_metadata({"pandas": json.dumps(pandas)})
        parquet.write_table(tasks, self._root / layout.TASKS)

    def _info(self) -> dict[str, Any]:
        names = self._data.interface
        height, width = self._arrays["pixels"].shape[2:4]
        rate: int | float = self._fps.numerator if self._fps.denominator == 1 else float(self._fps)
        features: dict[str, Any] = {}
        for key in self._cameras:
            features[key] = {
                "dtype": "video" if self._as_video else "image",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
            }
            if self._as_video:
                features[key]["info"] = {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": CODEC,
                    "video.pix_fmt": PIXELS,
                    "video.is_depth_map": False,
                    "video.fps": rate,
                    "video.channels": 3,
                    "has_audio": False,
                }
        for key, dims in ((layout.STATE, names.agent_pos_names), (layout.ACTION, names.action_names)):
            features[key] = {"dtype": "float32", "shape": [len(dims)], "names": list(dims)}
        for key, dtype in layout.INDICES.items():
            features[key] = {"dtype": dtype, "shape": [1], "names": None}
        for name in self._own:
            array = self._arrays[name]
            features[layout.OWN + name] = {"dtype": array.dtype.name, "shape": list(array.shape[1:]), "names": None}
        return {
            "codebase_version": layout.VERSION,
            "robot_type": None,
            "total_episodes": self._data.episodes,
            "total_frames": self._data.steps,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.FILES_PER_CHUNK,
            "data_files_size_in_mb": layout.DATA_MB,
            "video_files_size_in_mb": layout.VIDEO_MB,
            "fps": rate,
            "splits": {"train": f"0:{self._data.episodes}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEOS if self._as_video else None,
            "features": features,
        }


class _Files:
    """Files one after the other, each up to a size, counted as (chunk, file)."""

    def __init__(self, root: Path, template: str, megabytes: int) -> None:
        self._root, self._template, self._limit = root, template, megabytes * MEGABYTE
        self._number = -1

    def _next(self, **values: str) -> Path:
        self._number += 1
        chunk, file = divmod(self._number, layout.FILES_PER_CHUNK)
        path = self._root / self._template.format(chunk_index=chunk, file_index=file, **values)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        raise NotImplementedError


class _Tables(_Files):
    """Parquet files of rows."""

    def __init__(self, root: Path, template: str, megabytes: int) -> None:
        super().__init__(root, template, megabytes)
        self._writer: Any = None
        self._file: Any = None

    def __enter__(self) -> _Tables:
        return self

    def begin(self) -> tuple[int, int]:
        """Where the next episode's rows go."""
        if self._writer is not None and self._file.tell() >= self._limit:
            self._close()
        return divmod(self._number + (self._writer is None), layout.FILES_PER_CHUNK)

    def write(self, columns: dict[str, Any]) -> None:
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.table(columns)
        if self._writer is None:
            self._file = self._next().open("wb")
            self._writer = parquet.ParquetWriter(self._file, table.schema, compression="snappy")
        self._writer.write_table(table.cast(self._writer.schema))

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None


class _Videos(_Files):
    """The videos of one camera."""

    def __init__(self, root: Path, key: str, fps: Fraction) -> None:
        super().__init__(root, layout.VIDEOS, layout.VIDEO_MB)
        self._key, self._fps = key, fps
        self._writer: VideoWriter | None = None

    def __enter__(self) -> _Videos:
        return self

    def begin(self, frames: int) -> dict[str, Any]:
        """The columns of the next episode, which has so many frames."""
        if self._writer is not None and os.path.getsize(self._writer.path) >= self._limit:
            self._close()
        self._fresh = self._writer is None
        start = 0 if self._writer is None else self._writer.frames
        chunk, file = divmod(self._number + self._fresh, layout.FILES_PER_CHUNK)
        seconds = {"from_timestamp": float(start / self._fps), "to_timestamp": float((start + frames) / self._fps)}
        columns = {"chunk_index": chunk, "file_index": file, **seconds}
        return {f"videos/{self._key}/{name}": value for name, value in columns.items()}

    def add(self, picture: np.ndarray) -> None:
        if self._writer is None:
            self._writer = VideoWriter(self._next(video_key=self._key), picture.shape[:2], self._fps)
        self._writer.add(picture)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _parts(rows: slice) -> Iterator[slice]:
    for start in range(rows.start, rows.stop, layout.BATCH):
        yield slice(start, min(start + layout.BATCH, rows.stop))


def _column(values: np.ndarray) -> Any:
    """Rows as pyarrow has them: numbers, lists of a fixed length, or lists in lists."""
    import pyarrow

    flat = pyarrow.array(values.reshape(-1))
    inner = values.shape[1:]
    if inner == (1,):
        return flat
    if len(inner) == 1:
        return pyarrow.FixedSizeListArray.from_arrays(flat, inner[0])
    for axis in range(len(inner), 0, -1):
        lists = int(np.prod(values.shape[:axis]))
        offsets = np.arange(lists + 1, dtype=np.int32) * values.shape[axis]
        flat = pyarrow.ListArray.from_arrays(offsets, flat)
    return flat


def _png_column(pictures: np.ndarray, first: int) -> Any:
    """Pictures as the `datasets` library keeps them in a table."""
    import pyarrow

    rows = []
    for number, picture in enumerate(pictures):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG", compress_level=4)
        rows.append({"bytes": file.getvalue(), "path": f"frame-{first + number:06d}.png"})
    return pyarrow.array(rows, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
