"""One array of a dataset as a file that grows, episode by episode."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from configs.disk import filling
from training.data.episodes import DatasetError

KEPT = "Whole episodes are kept, and the same work goes on from there"


class ArrayFile:
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
    def opened(cls, path: Path, dtype: np.dtype[Any]) -> ArrayFile:
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
