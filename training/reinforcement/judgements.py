"""Judgements on validation scenes, and what both kinds of learning by reinforcement write down of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.disk import filling
from configs.reading import parse_json
from configs.seeds import split_seed
from envs.rollout import Actor, run
from envs.task import Env, TaskSpec
from training.error import TrainingError

CONFIG, LOG = "config.json", "log.jsonl"


def judge(envs: Sequence[Env], actor: Actor, spec: TaskSpec, episodes: int) -> int:
    """Successes on the first validation scenes, side by side in these environments, which are then closed."""
    successes = 0
    try:
        for first in range(0, episodes, len(envs)):
            indices = range(first, first + len(envs))
            seeds = [split_seed("validation", i) if i < episodes else None for i in indices]
            worlds = run(envs, seeds, actor, action_names=spec.action_names)
            successes += sum(bool(world.info["is_success"]) for world in worlds)
    finally:
        for env in envs:
            env.close()
    return successes


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The judgements so far; none before the first one.

    Raises:
        TrainingError: they are damaged. Without them, what was best so far would give way to the next one judged.
    """
    try:
        rows = [parse_json(line) for line in (folder / LOG).read_text().splitlines()]
        if not all(type(row[name]) is int for row in rows for name in ("step", "successes", "episodes")):
            raise ValueError("its lines are no judgements")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder / LOG}: damaged ({error}); put it right, or learn anew elsewhere") from None
    return rows


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write all judgements, a line each.

    Raises:
        DiskFullError: there is no room for them.
    """
    write_text(folder / LOG, "".join(json.dumps(row) + "\n" for row in rows))


def write_text(file: Path, text: str) -> None:
    """Put a text in the place of a file's, which a kill does not leave half written.

    Raises:
        DiskFullError: there is no room for it.
    """
    partial = file.with_name(f".{file.name}.partial")
    with filling(file):
        partial.write_text(text)
        partial.replace(file)


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
