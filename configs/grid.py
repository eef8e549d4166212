"""A comparison as one YAML file: what all rows share, what each changes, and one budget for all of them.

    run: track                      # a named run: data, training and evaluation, as far as the rows do not change them
    samples: 128000                 # budget of every row; several as a list: [16000, 64000]; or `seconds: 300`
    seeds: [0]                      # training seeds of every row
    base: {policy.frames: 2}        # changes of all rows, which rows may change again; not part of their names
    rows:
      - {}                          # the reference: every other row is compared with the first one
      - policy.encoder.name: [single_frame, conv3d]     # a list makes a row of each value
      - policy.fusion.name: concat                      # several keys in one item: all combinations
        policy.frames: [1, 6]
        seeds: [0, 1, 2]

Keys are fields of `configs.run.RunConfig`. What would change the demonstrations is refused: rows share the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

FORBIDDEN = ("tasks", "collect", "eval", "train.steps", "train.seed")  # what rows must share, or the grid decides
ALLOWED = ("policy", "train")
KEYS = {"run", "samples", "seconds", "seeds", "base", "rows"}


class GridError(ValueError):
    """A grid that cannot be run; the message names the file, what was got and what to do."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One policy to train and judge: a name for people and folders, changes to the run, and the training seed.

    `samples` is its budget, None if that is seconds; `among` says whether the grid has other budgets too.
    """

    variant: str
    changes: dict[str, Any]
    seed: int
    samples: int | None = None
    among: bool = False

    @property
    def name(self) -> str:
        budget = f"/samples={self.samples}" if self.among else ""
        return f"{self.variant}{budget}/seed={self.seed}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A comparison; see the module for the fields. `seconds` is None if the rows' budgets are samples."""

    run: str
    seconds: float | None
    rows: tuple[Row, ...]

    @property
    def variants(self) -> list[str]:
        """In the order of the file; the first one is the reference."""
        return list(dict.fromkeys(row.variant for row in self.rows))


def read_grid(path: Path) -> Grid:
    """Read a grid.

    Raises:
        GridError: not a grid; the message names the file and what is wrong with it.
    """
    if not path.is_file():
        raise GridError(f"{path}: no such file; give a YAML file such as configs/grids/debug.yaml")
    try:
        read = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GridError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(read, dict) or not isinstance(read.get("rows"), list) or not read["rows"]:
        raise GridError(f"{path}: needs a list `rows` with at least one item; `- {{}}` is the run as it is")
    unknown = sorted(set(read) - KEYS)
    if unknown:
        raise GridError(f"{path}: key {unknown[0]!r} is unknown; use {', '.join(sorted(KEYS))}")
    samples, seconds = _budgets(path, read)
    base = _changes(path, read.get("base", {}))
    rows = [row for item in read["rows"] for row in _expand(path, item, base, read.get("seeds", [0]), samples)]
    names = [row.name for row in rows]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise GridError(f"{path}: row {repeated[0]!r} is there twice")
    return Grid(run=str(read.get("run", "track")), seconds=seconds, rows=tuple(rows))


def _budgets(path: Path, read: dict[str, Any]) -> tuple[list[int | None], float | None]:
    """The samples of every row's budgets, or [None] and its seconds."""
    samples, seconds = read.get("samples"), read.get("seconds")
    several = samples if isinstance(samples, list) else [samples]
    if seconds is None and several and all(isinstance(n, int) and n > 0 for n in several):
        return sorted(set(several)), None
    if samples is None and isinstance(seconds, int | float) and seconds > 0:
        return [None], float(seconds)
    raise GridError(
        f"{path}: needs one budget for all rows above 0: `samples: 128000`, several as a list, or `seconds: 300`"
    )


def _changes(path: Path, item: Any) -> dict[str, Any]:
    """The fields that a mapping changes, and to what."""
    if not isinstance(item, dict):
        raise GridError(f"{path}: got {item!r}, expected a mapping from fields to values")
    changes = {key: value for key, value in item.items() if key != "seeds"}
    for key in changes:
        if key.split(".")[0] not in ALLOWED or any(key == f or key.startswith(f"{f}.") for f in FORBIDDEN):
            raise GridError(f"{path}: rows may change policy.* and train.*, but not the steps or seed; got {key!r}")
    return changes


def _expand(path: Path, item: Any, base: dict[str, Any], seeds: Any, samples: list[int | None]) -> Iterator[Row]:
    changes = {key: value if isinstance(value, list) else [value] for key, value in _changes(path, item).items()}
    chosen = item.get("seeds", seeds)
    if not isinstance(chosen, list) or not chosen or not all(isinstance(s, int) and s >= 0 for s in chosen):
        raise GridError(f"{path}: seeds {chosen!r} must be a list of numbers of 0 or more")
    for values in product(*changes.values()):
        row = dict(zip(changes, values, strict=True))
        for budget, seed in product(samples, chosen):
            among = len(samples) > 1
            yield Row(variant=variant_name(row), changes=base | row, seed=seed, samples=budget, among=among)


def variant_name(changes: dict[str, Any]) -> str:
    """A short name that fits a folder, such as "encoder=conv3d,frames=1"; "reference" for no change."""
    parts = []
    for key, value in changes.items():
        short = key.removeprefix("policy.").removeprefix("train.").removesuffix(".name")
        parts.append(f"{short}={value}")
    return re.sub(r"[^\w=,.+-]+", "_", ",".join(parts)) or "reference"
