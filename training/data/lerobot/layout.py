"""Where things are in a dataset of LeRobot's format v3.0, and what its `meta/` says, read with care: anybody may have
written it.

| file | content |
|---|---|
| `meta/info.json` | version, fps, features (dtype, shape, names), totals, templates of paths |
| `meta/stats.json` | per feature: min, max, mean, std, count and quantiles |
| `meta/tasks.parquet` | the instructions, each with its `task_index` |
| `meta/episodes/chunk-000/file-000.parquet` | per episode: length, files, place in each video, statistics |
| `data/chunk-000/file-000.parquet` | per frame: vectors and indices, PNG pictures where there are no videos |
| `videos/KEY/chunk-000/file-000.mp4` | the pictures of a camera, many episodes one after the other |
| `meta/vla_policy.json` | ours alone: the header of the dataset that was exported |

What LeRobot has no place for are features and columns of our own, called `vla.NAME`: its readers pass over them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.interface import RATES
from configs.reading import parse_json
from training.data.episodes import DatasetError, checksum

VERSION = "v3.0"
CONVERTER = "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
INFO, STATS, TASKS, OURS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/vla_policy.json"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEOS = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_PER_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200  # at which size the next file is begun
STATE, ACTION, PICTURES = "observation.state", "action", "observation.images."
# What every dataset has besides its own features, and its type.
INDICES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
OWN = "vla."  # of features and columns that are ours
# What a template of a path may ask to be filled in; Python's own format can do much more.
PLACE = re.compile(r"\{(chunk_index|file_index|video_key)(?::0?\d?d)?\}")
BATCH = 256  # rows of a file in memory at a time
LARGEST = 8192  # numbers along an axis of what is read, and pixels a side of its pictures
MOST = 10_000_000  # episodes, and files
DAMAGED = "it is damaged or unfinished, take another copy"


def require_pyarrow() -> None:
    """Say in a line what to install.

    Raises:
        DatasetError: pyarrow is not there.
    """
    try:
        import pyarrow.parquet  # noqa: F401 - whether it can be
    except ImportError as error:
        raise DatasetError(
            f"LeRobot's datasets need pyarrow, to read Parquet ({error}); run: pip install 'vla_policy[lerobot]'"
        ) from None


@dataclass(frozen=True, kw_only=True)
class Info:
    """What `meta/info.json` says. `features`: by key its dtype, shape and names. `cameras`: keys of the features that
    are pictures.
    """

    root: Path
    fps: float
    features: dict[str, dict[str, Any]]
    data_path: str
    video_path: str
    total_episodes: int
    total_frames: int

    @property
    def cameras(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature["dtype"] in ("video", "image")]

    def shape(self, key: str) -> tuple[int, ...]:
        shape = tuple(self.features[key]["shape"])
        if max(shape, default=1) > LARGEST:
            raise DatasetError(f"{self.root / INFO}: feature {key!r} is {list(shape)}, expected {LARGEST} at most")
        return shape

    def is_video(self, key: str) -> bool:
        return bool(self.features[key]["dtype"] == "video")

    def data_file(self, chunk: int, file: int) -> Path:
        return self._file(self.data_path, "data_path", chunk_index=chunk, file_index=file)

    def video_file(self, key: str, chunk: int, file: int) -> Path:
        return self._file(self.video_path, "video_path", video_key=key, chunk_index=chunk, file_index=file)

    def _file(self, template: str, field: str, **values: Any) -> Path:
        if wrong := re.search(r"[{}]", PLACE.sub("", template)):
            raise DatasetError(
                f"{self.root / INFO}: {field} {template[:80]!r} is no path, for its {wrong[0]!r} stands for "
                f"nothing; expected one such as {DATA if field == 'data_path' else VIDEOS}"
            )
        path = Path(template.format(**values))
        if path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{self.root / INFO}: {field} {template!r} leads out of the dataset")
        return self.root / path


def read_info(root: Path) -> Info:
    """What a dataset says of itself.

    Raises:
        DatasetError: there is none, it is of another version, or its description is damaged.
    """
    path = root / INFO
    if not path.is_file():
        raise DatasetError(f"{path}: missing, so {root} is no dataset of LeRobot's; give the folder that holds meta/")
    described = read_json(path)
    version = described.get("codebase_version")
    if not isinstance(version, str) or not version.startswith("v3."):
        old = isinstance(version, str) and version.startswith("v2")
        advice = f"convert it first, with LeRobot: {CONVERTER}" if old else "convert it with a LeRobot that can"
        raise DatasetError(f"{path}: codebase_version {version!r}, expected {VERSION}; {advice}")
    features = described.get("features")
    if not isinstance(features, dict) or not features:
        raise DatasetError(f"{path}: has no features; {DAMAGED}")
    for key, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
            raise DatasetError(f"{path}: feature {key!r} has the shape {shape!r}, expected numbers above 0; {DAMAGED}")
        if not isinstance(feature.get("dtype"), str):
            raise DatasetError(f"{path}: feature {key!r} has no dtype; {DAMAGED}")
    fps, counts = described.get("fps"), [described.get(name) for name in ("total_episodes", "total_frames")]
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not RATES[0] <= fps <= RATES[1]:
        raise DatasetError(f"{path}: fps {fps!r}, expected a number from {RATES[0]:g} to {RATES[1]:g}; {DAMAGED}")
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise DatasetError(f"{path}: total_episodes and total_frames are {counts}, expected both above 0; {DAMAGED}")
    paths = [described.get(name) or default for name, default in (("data_path", DATA), ("video_path", VIDEOS))]
    if not all(isinstance(template, str) for template in paths):
        raise DatasetError(f"{path}: data_path and video_path are {paths}, expected texts; {DAMAGED}")
    return Info(
        root=root,
        fps=float(fps),
        features=features,
        data_path=paths[0],
        video_path=paths[1],
        total_episodes=described["total_episodes"],
        total_frames=described["total_frames"],
    )


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises:
        DatasetError: it is none.
    """
    try:
        read = parse_json(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path}: not readable as JSON ({error}); {DAMAGED}") from None
    if not isinstance(read, dict):
        raise DatasetError(f"{path}: holds {type(read).__name__}, expected an object; {DAMAGED}")
    return read


def read_tasks(root: Path) -> dict[int, str]:
    """The instructions by their `task_index`. The texts are the table's other column: it has had several names."""
    path = root / TASKS
    texts: dict[int, str] = {}
    for batch in batches_of(path):
        rows = {name: values_of(batch.column(name), name, path) for name in batch.schema.names}
        indices = rows.pop("task_index", None)
        words = next((column for column in rows.values() if all(isinstance(text, str) for text in column)), None)
        if indices is None or words is None or not all(isinstance(index, int) for index in indices):
            raise DatasetError(f"{path}: columns {batch.schema.names}, expected task_index and texts; {DAMAGED}")
        texts |= dict(zip(indices, words, strict=True))
    return texts


@dataclass(frozen=True, kw_only=True)
class EpisodeEntry:
    """An episode's row in `meta/episodes`: its number and length, its data file as (chunk, file), by camera its video
    file and the second at which it begins there, and our own columns where there are any.
    """

    number: int
    length: int
    data: tuple[int, int]
    videos: dict[str, tuple[int, int, float]]
    own: dict[str, Any]


def read_episodes(info: Info) -> list[EpisodeEntry]:
    """All episodes, in the order of their files.

    Raises:
        DatasetError: a column is missing, or they are not as many as `info.json` says.
    """
    folder = info.root / "meta" / "episodes"
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{folder}: has no Parquet files; {DAMAGED}")
    videos = [key for key in info.cameras if info.is_video(key)]
    whole = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    whole += [f"videos/{key}/{name}" for key in videos for name in ("chunk_index", "file_index")]
    seconds = [f"videos/{key}/from_timestamp" for key in videos]
    entries = []
    for path in files:
        for batch in batches_of(path, [*whole, *seconds], optional=OWN):
            columns = {name: values_of(batch.column(name), name, path) for name in batch.schema.names}
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                good = {name: type(row[name]) is int and 0 <= row[name] < MOST for name in whole}
                good |= {name: type(row[name]) in (int, float) and 0 <= row[name] < MOST for name in seconds}
                if wrong := next((name for name in good if not good[name]), None):
                    kind = "a number" if wrong in seconds else "a whole number"
                    got = str(row[wrong])[:80]
                    raise DatasetError(f"{path}: {wrong} is {got}, expected {kind} from 0 to {MOST}; {DAMAGED}")
                entry = EpisodeEntry(
                    number=row["episode_index"],
                    length=row["length"],
                    data=(row["data/chunk_index"], row["data/file_index"]),
                    videos={
                        key: (
                            row[f"videos/{key}/chunk_index"],
                            row[f"videos/{key}/file_index"],
                            row[f"videos/{key}/from_timestamp"],
                        )
                        for key in videos
                    },
                    own={name: value for name, value in row.items() if name.startswith(OWN)},
                )
                entries.append(entry)
    if len({entry.number for entry in entries}) != len(entries) or len(entries) != info.total_episodes:
        raise DatasetError(f"{folder}: {len(entries)} episodes, {INFO} says {info.total_episodes}; {DAMAGED}")
    return sorted(entries, key=lambda entry: (entry.data, entry.number))


def batches_of(path: Path, columns: Sequence[str] | None = None, *, optional: str = "") -> Iterator[Any]:
    """A Parquet file as pyarrow's record batches of a few rows.

    Args:
        columns: that must be there; all if left out.
        optional: what the names of further columns begin with.

    Raises:
        DatasetError: it is missing, damaged or lacks a column.
    """
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        raise DatasetError(f"{path}: missing; {DAMAGED}")
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise DatasetError(f"{path}: has two columns {twice!r}; {DAMAGED}")
            if columns is not None:
                missing = [name for name in columns if name not in names]
                if missing:
                    raise DatasetError(f"{path}: has no column {missing[0]!r}; {DAMAGED}")
                columns = [*columns, *(name for name in names if optional and name.startswith(optional))]
            yield from file.iter_batches(BATCH, columns=columns)
    except DatasetError:
        raise
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())[:200]
        raise DatasetError(f"{path}: not readable as Parquet ({said}); {DAMAGED}") from None


def values_of(column: Any, name: str, path: Path) -> list[Any]:
    """A column's values as Python has them.

    Raises:
        DatasetError: it cannot have them, as of a date beyond its calendar, or of bytes that are no text.
    """
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, TypeError, OverflowError, NotImplementedError, ImportError) as error:
        said = " ".join(str(error).split())[:200]
        raise DatasetError(f"{path}: column {name!r} is not readable ({said}); {DAMAGED}") from None
    return values


def numbers(batch: Any, name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """A column of numbers as (rows, *shape); those of one number may be lists of one. Those of `INDICES` that LeRobot
    keeps as whole numbers are such.

    Raises:
        DatasetError: it holds something else, or numbers that are not finite as float32.
    """
    import pyarrow
    from pyarrow import types

    column = batch.column(name)
    while types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
        column = column.flatten()
    kind = column.type
    whole = INDICES.get(name) == "int64"
    good = types.is_integer(kind) or (not whole and (types.is_floating(kind) or types.is_boolean(kind)))
    size = batch.num_rows * math.prod(shape)
    if not good or column.null_count or len(column) != size:
        got = f"{len(column) - column.null_count} values of {kind} in {batch.num_rows} rows"
        expected = f"{'whole ' if whole else ''}numbers of the shape {list(shape)}"
        raise DatasetError(f"{path}: column {name!r} has {got}, expected {expected}; {DAMAGED}")
    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
    values: np.ndarray = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f" and not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise DatasetError(f"{path}: column {name!r} has values that are not finite; {DAMAGED}")
    return values.reshape(batch.num_rows, *shape)


def names_of(feature: dict[str, Any], count: int, kind: str) -> tuple[str, ...]:
    """Names of a vector's dimensions. They come as a list, as a list below a word such as "motors", or as name →
    place; where they do not fit, the dimensions are counted: "action_0" and so on.
    """
    given = feature.get("names")
    if isinstance(given, dict) and len(given) == 1 and isinstance(next(iter(given.values())), list):
        given = next(iter(given.values()))
    elif isinstance(given, dict) and all(isinstance(place, int) for place in given.values()):
        given = [name for name, _ in sorted(given.items(), key=lambda item: item[1])]
    if not isinstance(given, list) or len(given) != count or not all(isinstance(n, str) and n for n in given):
        return tuple(f"{kind}_{i}" for i in range(count))
    return tuple(given) if len(set(given)) == count else tuple(f"{name}_{i}" for i, name in enumerate(given))


def fingerprint(info: Info) -> str:
    """Hexadecimal digits that are others for another dataset: of all that `meta/` says."""
    found = hashlib.sha256()
    for path in sorted((info.root / "meta").rglob("*")):
        if path.is_file():
            found.update(path.relative_to(info.root).as_posix().encode(errors="surrogateescape"))
            found.update(checksum(path).encode())
    return found.hexdigest()
