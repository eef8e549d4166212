"""The log of a run: means of the metrics, as JSON lines and as TensorBoard scalars."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from configs.disk import filling
from configs.reading import parse_json

LOG = "log.jsonl"
ALWAYS = ("step", "seconds", "loss")  # numbers that every row has
KEPT = "A state saved before is kept, and --resume goes on from there"


class Log:
    """Means of the metrics since the last row, as JSON lines and TensorBoard scalars."""

    def __init__(self, out: Path, step: int, *, enabled: bool) -> None:
        self._enabled, self._count = enabled, 0
        self._sums: dict[str, Tensor] = {}
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter

        rows = [r for r in read_log(out) if r["step"] <= step]
        self._before = rows[-1]["seconds"] if rows else 0.0
        self._path = out / LOG
        with filling(self._path, KEPT):
            self._file = self._path.open("w")
            self._file.writelines(json.dumps(row) + "\n" for row in rows)
            self._file.flush()
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1

    def flush(self, step: int, seconds: float, rate: float, learning_rate: float) -> dict[str, float]:
        row = {name: float(total) / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        before = self._before if self._enabled else 0.0
        return {
            "step": step,
            "seconds": round(before + seconds, 2),
            "samples_per_second": round(rate, 1),
            "learning_rate": learning_rate,
            **{name: round(value, 5) for name, value in row.items()},
        }

    def extend(self, row: dict[str, float], more: dict[str, float]) -> None:
        row.update({name: round(value, 5) for name, value in more.items()})

    def write(self, row: dict[str, float]) -> None:
        if self._enabled:
            with filling(self._path, KEPT):
                self._file.write(json.dumps(row) + "\n")
                self._file.flush()
                for name, value in row.items():
                    if name != "step":
                        self._board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        if self._enabled:
            with filling(self._path, KEPT):
                try:
                    self._file.close()
                finally:
                    self._board.close()


def read_log(out: Path) -> list[dict[str, float]]:
    """The rows of a run's log; a last line cut short by a crash is left out."""
    rows: list[dict[str, float]] = []
    if (out / LOG).is_file():
        for line in (out / LOG).read_text().splitlines():
            try:
                row = parse_json(line)
            except ValueError:
                break
            if not isinstance(row, dict) or not all(isinstance(row.get(name), int | float) for name in ALWAYS):
                break
            rows.append(row)
    return rows
