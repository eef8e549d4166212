"""Datasets made in shards by one pool of workers, whatever the task: shard k of a task always holds the same episodes,
so that an interrupted collection goes on where it stopped, and workers may be as many as there are cores.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.collect import SHARD_EPISODES, SHARD_SEEDS, CollectConfig
from configs.seeds import collection_seed
from envs.cores import usable_cores
from envs.workers import NOTHING, Lost, Pulse, run_jobs
from training.data.episodes import Dataset, DatasetError, Episode, open_dataset
from training.data.writer import PARTIAL, DatasetWriter, OtherHeaderError, merge_datasets
from training.lock import hold_folder

TRIES = 2  # for a shard whose worker died or hung

OnProgress = Callable[[int, int, float], None]  # episodes, failures, frames per second
# In a worker: makes what a plan's `setup` needs, which the stack closes, and returns what writes one shard of it.
Prepare = Callable[[Pulse, Any, ExitStack], Callable[[int], None]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A dataset that is to be made.

    Args:
        path: where. Its shards are beside it meanwhile, see `shards_of`.
        content: what decides the data; each shard's header has it as `collection`.
        setup: what a worker is told of it.
    """

    path: Path
    config: CollectConfig
    content: dict[str, Any]
    setup: Any


@dataclass
class _Making:
    """How far a plan is: the shards that are there, and how often each other one was tried."""

    plan: Plan
    parts: dict[int, Dataset] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    done: Dataset | None = None

    @property
    def folder(self) -> Path:
        return shards_of(self.plan.path)

    @property
    def episodes(self) -> int:
        return self.done.episodes if self.done else sum(part.episodes for part in self.parts.values())

    @property
    def failures(self) -> int:
        return sum(int(part.header["failures"]) for part in ([self.done] if self.done else self.parts.values()))

    @property
    def missing(self) -> list[int]:
        return [] if self.done else [i for i in range(self.plan.config.shards) if i not in self.parts]

    def look(self) -> None:
        """Find what is there already."""
        path, folder, content = self.plan.path, self.folder, self.plan.content
        if path.exists():
            self.done = open_dataset(path)
            if not _same(self.done, content):
                raise DatasetError(
                    f"{path}: holds a dataset collected with other settings, or of another version of the task; "
                    "choose another --out or remove it"
                )
            shutil.rmtree(folder, ignore_errors=True)  # left by a call that ended between joining and tidying up
            return
        for shard in self.missing:
            try:
                self.parts[shard] = open_dataset(_part(folder, shard))
            except DatasetError:  # not there, or damaged: it is collected again
                shutil.rmtree(_part(folder, shard), ignore_errors=True)
        if not all(_same(part, content) for part in self.parts.values()):
            raise DatasetError(
                f"{folder}: left by a collection with other settings, or of another version of the task; remove it"
            )
        for shard, part in self.parts.items():
            if found := self._otherwise(part):
                raise DatasetError(f"{folder}/{shard:05d}: made with {found}; episodes must not be mixed, remove it")

    def add(self, shard: int, data: Dataset) -> None:
        """Take a shard that was just made.

        Raises:
            DatasetError: it was made with other packages, or drawn by another renderer, than those of an earlier call.
        """
        if found := self._otherwise(data):
            shutil.rmtree(data.path)  # so that the others can be gone on with
            raise DatasetError(
                f"{self.folder}: earlier shards were not made as they would be now, with {found}; episodes must not be "
                "mixed: go on with what they were made with, or remove that folder"
            )
        self.parts[shard] = data

    def _otherwise(self, data: Dataset) -> str:
        """What a shard was made with otherwise than the first one that is there, "" if with the same."""
        first = next(iter(self.parts.values()), data)
        made, before = (
            {**(each.header.get("versions") or {}), "renderer": each.header.get("gl_renderer")}
            for each in (data, first)
        )
        for name, value in made.items():
            if before.get(name, value) != value:  # a package that one does not mention was not looked at then
                return f"{name} {value!r}, not {before[name]!r}"
        return ""

    def lost(self, shard: int, answer: Lost[Any]) -> None:
        """Note that a shard came to nothing.

        Raises:
            DatasetError: not for the first time.
        """
        self.tries[shard] = self.tries.get(shard, 0) + 1
        if self.tries[shard] == TRIES:
            at = "" if answer.item == NOTHING else f" (seed {answer.item})"
            raise DatasetError(f"{self.folder}: {answer.reason}{at}; finished shards are kept, run again")

    def join(self) -> None:
        """Put the shards together, if all are there."""
        if self.missing or self.done:
            return
        ordered = [self.parts[shard] for shard in sorted(self.parts)]
        left_out = ("schema_version", "files", "steps", "instructions", "failures", "sha256")
        header = {k: v for k, v in ordered[0].header.items() if k not in left_out}
        header["failures"] = self.failures
        merge_datasets(self.plan.path, ordered, header)
        self.done = open_dataset(self.plan.path, verify=False)
        self.parts.clear()
        shutil.rmtree(self.folder)


def collect_plans(plans: Sequence[Plan], prepare: Prepare, *, on_progress: OnProgress | None = None) -> list[Dataset]:
    """Have workers write all shards that are not there yet, and join each plan's once they are; the datasets.

    `on_progress` is called as shards are finished, with numbers of all plans together. Number of workers and patience
    are those of the first plan's settings.

    Raises:
        ValueError: what was asked for cannot be done.
        DatasetError: a path holds a dataset made otherwise, episodes keep failing, or workers keep dying.
        LockedError: another process collects there.
    """
    with ExitStack() as locks:
        for plan in plans:
            if not plan.path.exists():
                locks.enter_context(hold_folder(shards_of(plan.path)))
        makings = [_Making(plan) for plan in plans]
        for making in makings:
            making.look()
        _collect(makings, prepare, on_progress)
    return [making.done for making in makings if making.done is not None]


def _collect(makings: Sequence[_Making], prepare: Prepare, on_progress: OnProgress | None) -> None:
    started, frames = time.monotonic(), 0

    def report() -> None:
        if on_progress is not None:
            rate = frames / max(time.monotonic() - started, 1e-9)
            on_progress(sum(m.episodes for m in makings), sum(m.failures for m in makings), rate)

    report()
    for making in makings:
        making.join()
    todo = deque((number, shard) for number, making in enumerate(makings) for shard in making.missing)
    config, setup = makings[0].plan.config, (prepare, [making.plan.setup for making in makings])
    workers = min(config.workers or usable_cores(), max(len(todo), 1))
    for answer in run_jobs(todo, _prepare, setup, workers=workers, timeout=config.timeout):
        number, shard = answer.job if isinstance(answer, Lost) else answer[0]
        making = makings[number]
        if isinstance(answer, Lost):
            making.lost(shard, answer)
            todo.append(answer.job)
            continue
        making.add(shard, open_dataset(_part(making.folder, shard), verify=False))
        frames += making.parts[shard].steps
        report()
        making.join()


def _prepare(pulse: Pulse, setup: tuple[Prepare, list[Any]]) -> Callable[[tuple[int, int]], None]:
    """In a worker: does jobs, a plan's number and a shard, with what the plan of the last one needed still at hand."""
    prepare, setups = setup
    at_hand: dict[int, Callable[[int], None]] = {}
    stack = ExitStack()

    def handle(job: tuple[int, int]) -> None:
        number, shard = job
        if number not in at_hand:
            at_hand.clear()
            stack.close()
            at_hand[number] = prepare(pulse, setups[number], stack)
        at_hand[number](shard)

    return handle


def shards_of(path: Path) -> Path:
    """Where the shards of a dataset are while it is being collected."""
    return path.with_name(f"{path.name}.shards")


def write_shard(
    folder: Path,
    shard: int,
    config: CollectConfig,
    header: dict[str, Any],
    episodes: Callable[[Sequence[int], int, int], Iterator[Episode | None]],
    *,
    keep_failures: bool = False,
) -> None:
    """Write one shard, going on with the episodes that a killed worker left.

    Args:
        header: of the dataset; the number of failures comes to it.
        episodes: of these environment seeds, the episode of each from this one on, in their order; None where there is
            nothing to keep. The last argument is how many are kept already.
        keep_failures: keep the episodes that failed, too.

    Raises:
        DatasetError: too few episodes can be kept.
    """
    wanted, first = wanted_of(config, shard), shard * SHARD_SEEDS
    seeds = [collection_seed(config.split, config.seed, first + attempt) for attempt in range(SHARD_SEEDS)]
    with _shard_writer(_part(folder, shard), header) as writer:
        kept = len(writer.seeds)
        begun = seeds.index(writer.seeds[-1]) + 1 if kept else 0
        failures = begun - kept
        for episode in () if kept == wanted else episodes(seeds, begun, kept):
            if episode is None or not (episode.success or keep_failures):
                failures += 1
                continue
            writer.add(episode)
            kept += 1
            if kept == wanted:
                break
        if kept == wanted:
            writer.finish({"failures": failures})
            return
    if keep_failures:
        what = "end with a stable simulation"
    elif header.get("on_policy"):
        what = "succeed; set dagger.keep_failures to true, or raise dagger.beta and dagger.beta_least"
    else:
        what = "succeed at this noise; lower collect.noise"
    raise DatasetError(f"task {header['task']}: only {kept} of {SHARD_SEEDS} episodes {what}")


def wanted_of(config: CollectConfig, shard: int) -> int:
    """Episodes that a shard is to hold."""
    return min(SHARD_EPISODES, config.episodes - shard * SHARD_EPISODES)


def _part(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}"


def _same(data: Dataset, content: dict[str, Any]) -> bool:
    """Whether a dataset was collected with these settings. One that it does not mention did not exist then, and counts
    as left at its default.
    """
    before = data.header.get("collection")
    usual = {**CollectConfig().content(data.header["task"]), "version": 1}
    return isinstance(before, dict) and {**usual, **before} == content


def _shard_writer(path: Path, header: dict[str, Any]) -> DatasetWriter:
    """A writer that goes on with the episodes that a killed worker left."""
    try:
        return DatasetWriter(path, header, resume=True)
    except OtherHeaderError:  # other settings or versions: episodes of both must not be mixed
        shutil.rmtree(path.with_name(f"{path.name}{PARTIAL}"))
        return DatasetWriter(path, header)
