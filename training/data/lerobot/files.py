"""The Parquet files and videos of an export, each followed by the next once it is large; and columns for them."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.data.lerobot import layout
from training.data.lerobot.video import VideoWriter

MEGABYTE = 1024**2


class Files:
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


class Tables(Files):
    """Parquet files of rows."""

    def __init__(self, root: Path, template: str, megabytes: int) -> None:
        super().__init__(root, template, megabytes)
        self._writer: Any = None
        self._file: Any = None

    def __enter__(self) -> Tables:
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


class Videos(Files):
    """The videos of one camera."""

    def __init__(self, root: Path, key: str, fps: Fraction) -> None:
        super().__init__(root, layout.VIDEOS, layout.VIDEO_MB)
        self._key, self._fps = key, fps
        self._writer: VideoWriter | None = None

    def __enter__(self) -> Videos:
        return self

    def begin(self, frames: int) -> dict[str, Any]:
        """The columns of the next episode, which has so many frames."""
        if self._writer is not None and self._writer.bytes >= self._limit:
            self._close()
        start = 0 if self._writer is None else self._writer.frames
        chunk, file = divmod(self._number + (self._writer is None), layout.FILES_PER_CHUNK)
        seconds = {"from_timestamp": float(start / self._fps), "to_timestamp": float((start + frames) / self._fps)}
        columns = {"chunk_index": chunk, "file_index": file, **seconds}
        return {f"videos/{self._key}/{name}": value for name, value in columns.items()}

    def add(self, pictures: np.ndarray) -> None:
        """Append pictures, (n, H, W, 3) uint8."""
        if self._writer is None:
            self._writer = VideoWriter(self._next(video_key=self._key), pictures.shape[1:3], self._fps)
        for picture in pictures:
            self._writer.add(picture)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def column(values: np.ndarray) -> Any:
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


def png_column(pictures: np.ndarray, first: int) -> Any:
    """Pictures as the `datasets` library keeps them in a table."""
    import pyarrow

    rows = []
    for number, picture in enumerate(pictures):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG", compress_level=4)
        rows.append({"bytes": file.getvalue(), "path": f"frame-{first + number:06d}.png"})
    return pyarrow.array(rows, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
