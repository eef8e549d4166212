"""Writes a dataset in LeRobot's format v3.0, episode by episode: `training.data.lerobot.layout` says what is where.

LeRobot's `action` is the label of what the instruction asked for. All else that a dataset of ours holds goes along as
`vla.NAME`: plans, what was executed, boxes, seeds, what every thing of the scene is called. So nothing is lost on the
way back.

n steps of an episode, V cameras, H W picture, O things, S steps of a plan, A actions, P proprioception.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from configs.disk import whole_folder
from training.data.episodes import CHECKED_ROWS, GOAL_LABELS, HEADER, LABELS, PLANNED, Dataset, DatasetError
from training.data.lerobot import layout
from training.data.lerobot.files import Tables, Videos, column, png_column
from training.data.lerobot.scale import Scale
from training.data.lerobot.statistics import Histogram, PictureHistogram, describe
from training.data.lerobot.video import CODEC, PIXELS
from training.lock import hold_file

Pictures = Literal["video", "png"]
OnProgress = Callable[[int, int], None]  # episodes done, all
FLUSHED = 100  # episodes whose rows are in memory at a time
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
        with whole_folder(out) as partial:
            _Export(data, partial, pictures, Fraction(rate).limit_denominator(1001)).write(on_progress)
    finally:
        lock.release()


class _Export:
    def __init__(self, data: Dataset, root: Path, pictures: Pictures, fps: Fraction) -> None:
        self._data, self._root, self._as_video, self._fps = data, root, pictures == "video", fps
        self._arrays, self._offsets = data.arrays, data.arrays["offsets"]
        self._scale = Scale.from_header(data.header, len(data.interface.action_names))
        self._cameras = {f"{layout.PICTURES}{name}": i for i, name in enumerate(data.interface.cameras)}
        # Those of the demonstrated things: other things' words are nobody's task.
        told = [texts[target] for texts, target in zip(data.instructions, self._arrays["targets"], strict=True)]
        self._tasks = {str(text): index for index, text in enumerate(dict.fromkeys(told))}
        self._told = [str(text) for text in told]
        self._own = self._own_columns()

    def _own_columns(self) -> list[str]:
        """Arrays of ours whose rows go along. Where one thing has one label a step, that is LeRobot's action."""
        action, executed = self._arrays["action"], self._arrays["executed"]
        names = [name for name in (PLANNED, *LABELS, *GOAL_LABELS) if name in self._arrays]
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
            frames = stack.enter_context(Tables(self._root, layout.DATA, layout.DATA_MB))
            entries = stack.enter_context(Tables(self._root, layout.EPISODES, layout.DATA_MB))
            videos = {key: stack.enter_context(Videos(self._root, key, self._fps)) for key in self._cameras}
            waiting: list[dict[str, Any]] = []
            for number in range(episodes):
                vectors = self._vectors(number)
                for name, spread in spreads.items():
                    spread.add(vectors[name])
                entry, pictures = self._write_episode(number, vectors, frames, videos)
                for key, histogram in pictures.items():
                    seen[key].merge(histogram)
                entry["meta/episodes/chunk_index"], entry["meta/episodes/file_index"] = entries.begin()
                waiting.append(entry)
                if len(waiting) == FLUSHED or number == episodes - 1:
                    entries.write({name: [row[name] for row in waiting] for name in waiting[0]})
                    waiting.clear()
                if on_progress:
                    on_progress(number + 1, episodes)
            self._write_meta(spreads, seen)

    def _write_episode(
        self, number: int, vectors: dict[str, np.ndarray], frames: Tables, videos: dict[str, Videos]
    ) -> tuple[dict[str, Any], dict[str, PictureHistogram]]:
        """Write an episode's frames; its row of `meta/episodes`, and how bright the pictures of each camera are."""
        rows = self._rows(number)
        length = rows.stop - rows.start
        entry: dict[str, Any] = {
            "episode_index": number,
            "tasks": [self._told[number]],
            "length": length,
            "dataset_from_index": rows.start,
            "dataset_to_index": rows.stop,
            layout.OWN + "seed": int(self._arrays["seeds"][number]),
            layout.OWN + "target": int(self._arrays["targets"][number]),
            layout.OWN + "events": self._arrays["events"][number].tolist(),
            layout.OWN + "instructions": self._data.header["instructions"][number],
        }
        entry["data/chunk_index"], entry["data/file_index"] = frames.begin()
        if self._as_video:
            for video in videos.values():
                entry |= video.begin(length)
        seen = {key: PictureHistogram() for key in self._cameras}
        for part in _parts(rows):
            table = self._table(vectors, part, rows.start)
            for key, camera in self._cameras.items():
                pictures = self._arrays["pixels"][part, camera]
                seen[key].add(pictures)
                if self._as_video:
                    videos[key].add(pictures)
                else:
                    table[key] = png_column(pictures, part.start - rows.start)
            frames.write(table)
        statistics: dict[str, Any] = {name: describe(values) for name, values in vectors.items()}
        statistics |= {key: histogram.describe() for key, histogram in seen.items()}
        entry |= {f"stats/{name}/{k}": v for name, found in statistics.items() for k, v in found.items()}
        return entry, seen

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
        return {name: column(values) for name, values in (columns | own).items()}

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


def _parts(rows: slice) -> Iterator[slice]:
    for start in range(rows.start, rows.stop, layout.BATCH):
        yield slice(start, min(start + layout.BATCH, rows.stop))
