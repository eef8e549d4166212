"""What both kinds of learning by reinforcement write down of their judgements on validation scenes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.disk import filling
from configs.reading import parse_json
from training.error import TrainingError

CONFIG, LOG = "config.json", "log.jsonl"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The judgements so far; none where there are none that can be read."""
    try:
        return [parse_json(line) for line in (folder / LOG).read_text().splitlines()]
    except (OSError, ValueError):
        return []


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write all judgements, a line each.

    Raises:
        DiskFullError: there is no room for them.
    """
    with filling(folder / LOG), (folder / LOG).open("w") as log:
        log.writelines(json.dumps(row) + "\n" for row in rows)


def most_successes(rows: Sequence[dict[str, Any]]) -> int:
    """Of the best judgement, -1 if there is none."""
    return max((int(row["successes"]) for row in rows), default=-1)


def check_used(folder: Path, state: Path, resume: bool) -> None:
    """Refuse to begin where a run is, and to go on where none is.

    Raises:
        TrainingError: what stands against it.
    """
    if resume and not state.is_file():
        raise TrainingError(f"{folder}: no saved state to resume; begin without --resume, into another --out")
    if not resume and (folder / CONFIG).exists():
        raise TrainingError(f"{folder}: holds a run already; add --resume to go on with it, or choose another --out")
