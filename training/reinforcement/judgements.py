"""Judgements on validation scenes, and what both kinds of learning by reinforcement write down of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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


class Judgements:
    """The judgements of a run, `rows`, as its folder has them in a file, a line each.

    Args:
        resume: go on with those that are there.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self._folder = folder
        self.rows = _read_rows(folder) if resume else []

    @property
    def best(self) -> int:
        """Successes of the best one, -1 if there is none."""
        return max((int(row["successes"]) for row in self.rows), default=-1)

    def newest_step(self) -> int:
        """Of the newest one, -1 if there is none."""
        return int(self.rows[-1]["step"]) if self.rows else -1

    def forget_after(self, step: int) -> None:
        """Those after the state that is gone on from are made again."""
        self.rows = [row for row in self.rows if row["step"] <= step]

    def add(self, row: dict[str, Any], keep: Callable[[], None], *, ties: bool) -> None:
        """Note one; what was judged is kept first if it is the best so far, so that what is noted is there.

        Args:
            keep: saves what was judged.
            ties: whether of two as good ones the newer one is kept.

        Raises:
            DiskFullError: there is no room.
        """
        if row["successes"] > self.best or (ties and row["successes"] == self.best):
            keep()
        self.rows.append(row)
        write_text(self._folder / LOG, "".join(json.dumps(each) + "\n" for each in self.rows))


def _read_rows(folder: Path) -> list[dict[str, Any]]:
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


def write_text(file: Path, text: str) -> None:
    """Put a text in the place of a file's, which a kill does not leave half written.

    Raises:
        DiskFullError: there is no room for it.
    """
    partial = file.with_name(f".{file.name}.partial")
    with filling(file):
        partial.write_text(text)
        partial.replace(file)


def check_used(folder: Path, state: Path, resume: bool) -> None:
    """Refuse to begin where something was learned already, and to go on where there is nothing to go on from. What was
    stopped before its first judgement of something learned may begin anew.

    Raises:
        TrainingError: what stands against it.
    """
    if state.is_file():
        if not resume:
            raise TrainingError(f"{folder}: holds a run already; add --resume to go on, or choose another --out")
        return
    if any(row["step"] > 0 for row in _read_rows(folder)):
        raise TrainingError(
            f"{folder}: holds a run that is finished, or that was stopped as it saved its first state; choose another "
            "--out"
        )
    if resume:
        raise TrainingError(f"{folder}: no saved state to resume; begin without --resume")
