"""A comparison as one YAML file: what all rows share, what each changes, and the same budgets for all of them.

    run: track                      # a named run: data, training and evaluation, as far as the rows do not change them
    samples: 128000                 # budget of every row; several as a list: [16000, 64000]; or `seconds: 300`
    seeds: [0]                      # training seeds of every row
    base: {policy.frames: 2}        # single values for all rows, which rows may change again; not in their names.
                                    # A setting of one variant, such as policy.fusion.vote.rule, is for its rows alone
                                    # A value that is a list has brackets of its own: policy.cameras: [[left, right]]
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
from typing import Any, TypeGuard

from configs.checks import variants_of
from configs.policy import EncoderConfig, FusionConfig, HeadConfig, LanguageConfig
from configs.reading import parse_yaml

FORBIDDEN = ("tasks", "collect", "eval", "train.steps", "train.seed")  # what rows must share, or the grid decides
ALLOWED = ("policy", "train")
VARIANTS = {
    f"policy.{name}": variants_of(kind)
    for name, kind in (
        ("encoder", EncoderConfig),
        ("language", LanguageConfig),
        ("fusion", FusionConfig),
        ("head", HeadConfig),
    )
}
KEYS = {"run", "samples", "seconds", "seeds", "base", "rows"}


class GridError(ValueError):
    """A grid that cannot be run; the message names the file, what was got and what to do."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One policy to train and judge: a name for people, changes to the run, and the training seed.

    `samples` is its budget, None if that is seconds.
    """

    variant: str
    changes: dict[str, Any]
    seed: int
    samples: int | None = None

    @property
    def name(self) -> str:
        """The folder of what becomes of it."""
        budget = "" if self.samples is None else f"/samples={self.samples}"
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
        read = parse_yaml(path.read_text())
    except ValueError as error:
        raise GridError(f"{path}: not readable as YAML ({error})") from None
    if not isinstance(read, dict) or not isinstance(read.get("rows"), list) or not read["rows"]:
        raise GridError(f"{path}: needs a list `rows` with at least one item; `- {{}}` is the run as it is")
    unknown = sorted(set(read) - KEYS)
    if unknown:
        raise GridError(f"{path}: key {unknown[0]!r} is unknown; use {', '.join(sorted(KEYS))}")
    samples, seconds = _budgets(path, read)
    base = _changes(path, "base", read.get("base", {}))
    for key, value in base.items():
        one = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
        if key == "seeds" or (isinstance(value, list) and not one):
            raise GridError(
                f"{path}: base: {key} {value!r}: seeds and several values are for rows; give one value, and of a field "
                "that is a list [[this, form]]"
            )
        base[key] = value[0] if one else value
    items = enumerate(read["rows"], start=1)
    rows = [row for i, item in items for row in _expand(path, f"row {i}", item, base, read.get("seeds", [0]), samples)]
    names = [row.name for row in rows]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise GridError(f"{path}: row {repeated[0]!r} is there twice")
    return Grid(run=str(read.get("run", "track")), seconds=seconds, rows=tuple(rows))


def _budgets(path: Path, read: dict[str, Any]) -> tuple[list[int | None], float | None]:
    """The samples of every row's budgets, or [None] and its seconds."""
    samples, seconds = read.get("samples"), read.get("seconds")
    several: list[Any] = samples if isinstance(samples, list) else [samples]
    if seconds is None and several and all(_is_number(n) and n == int(n) for n in several):
        return [*sorted({int(n) for n in several})], None
    if samples is None and _is_number(seconds):
        return [None], float(seconds)
    raise GridError(
        f"{path}: got samples {samples!r} and seconds {seconds!r}, expected one budget for all rows above 0: "
        "`samples: 128000`, several as a list, or `seconds: 300`"
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _changes(path: Path, where: str, item: Any) -> dict[str, Any]:
    """The fields that a mapping changes, and to what; and its seeds, if it has any."""
    if not isinstance(item, dict):
        raise GridError(f"{path}: {where}: got {item!r}, expected a mapping from fields to values")
    for key in item:
        known = isinstance(key, str) and (key == "seeds" or key.split(".")[0] in ALLOWED)
        if not known or any(key == f or key.startswith(f"{f}.") for f in FORBIDDEN):
            raise GridError(
                f"{path}: {where}: rows may change policy.* and train.*, but not the steps or seed; got {key!r}"
            )
    return dict(item)


def _expand(
    path: Path, where: str, item: Any, base: dict[str, Any], seeds: Any, samples: list[int | None]
) -> Iterator[Row]:
    read = _changes(path, where, item)
    chosen = read.pop("seeds", seeds)
    changes = {key: value if isinstance(value, list) else [value] for key, value in read.items()}
    whole = isinstance(chosen, list) and all(type(s) is int and s >= 0 for s in chosen)
    if not whole or not chosen:
        raise GridError(f"{path}: {where}: seeds {chosen!r} must be a list of numbers of 0 or more")
    for values in product(*changes.values()):
        row = dict(zip(changes, values, strict=True))
        for budget, seed in product(samples, chosen):
            yield Row(variant=variant_name(row), changes=_used(base, row) | row, seed=seed, samples=budget)


def _used(base: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The shared changes without settings of variants that this row does not choose, which would be refused."""

    def is_used(key: str) -> bool:
        section = key.rpartition(".")[0]
        part, _, variant = section.rpartition(".")
        chosen = {**base, **row}.get(f"{part}.name")
        return chosen is None or variant == chosen or variant not in VARIANTS.get(part, ())

    return {key: value for key, value in base.items() if is_used(key)}


def variant_name(changes: dict[str, Any]) -> str:
    """A short name that fits a folder, such as "encoder=conv3d,frames=1"; "reference" for no change."""
    parts = []
    for key, value in changes.items():
        short = key.removeprefix("policy.").removeprefix("train.").removesuffix(".name")
        shown = "+".join(map(str, value)) if isinstance(value, list | tuple) else value
        parts.append(f"{short}={shown}")
    return re.sub(r"[^\w=,.+-]+", "_", ",".join(parts)) or "reference"
