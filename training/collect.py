"""Demonstrations: parallel workers run the expert under injected noise and write shards, which are then joined.

Shard k always holds the same episodes, whatever the number of workers, so that an interrupted collection goes on
where it stopped. The executed action carries noise while clean ones are stored as labels (DART, Laskey et al. 2017):
the policy sees how to recover from states the expert alone would never visit.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.collect import SHARD_EPISODES, SHARD_SEEDS, CollectConfig
from configs.seeds import collection_seed
from envs.actors import NoisyExpert
from envs.contract import check_contract
from envs.cores import usable_cores
from envs.rollout import Beat, run
from envs.task import Env, TaskSpec, find_task, make_task, offers
from envs.workers import NOTHING, Lost, Pulse, run_jobs
from training.data.episodes import Dataset, DatasetError, Episode, open_dataset
from training.data.writer import PARTIAL, DatasetWriter, OtherHeaderError, merge_datasets
from training.lock import hold_folder
from training.recorder import EpisodeRecorder

TRIES = 2  # for a shard whose worker died or hung
VERSIONED = ("mujoco", "gymnasium", "numpy")

OnProgress = Callable[[int, int, float], None]  # episodes, failures, frames per second


class Demonstrator:
    """Makes episodes of one task, one after the other, in one environment.

    Args:
        scout: a second environment of the task that draws nothing. Each episode is tried in it first, so that no
            picture is drawn of one that fails; the same seed gives the same episode in both.
    """

    def __init__(self, env: Env, spec: TaskSpec, config: CollectConfig, scout: Env | None = None) -> None:
        expert = spec.make_expert()
        self._env, self._scout, self._names = env, scout, spec.action_names
        self._actor = actor = NoisyExpert(expert, config.noise, config.detours)
        self._recorder = EpisodeRecorder(
            config.cameras, expert, config.plan_steps, label=lambda _: actor.clean, rng=lambda _: actor.rng
        )

    def demonstrate(self, seed: int, beat: Beat | None = None) -> Episode | None:
        """The episode of this environment seed, None if the simulation became unstable or the scout failed."""
        own = None if beat is None else lambda *_: beat(seed)  # all that is done is done for this seed
        if self._scout is not None:
            [tried] = run([self._scout], [seed], self._actor, action_names=self._names, beat=own)
            if not tried.info["is_success"]:
                return None
        run([self._env], [seed], self._actor, [self._recorder], action_names=self._names, beat=own)
        return self._recorder.episode


def collect(task: str, config: CollectConfig, path: Path, *, on_progress: OnProgress | None = None) -> Dataset:
    """Collect a task's dataset at `path`, going on from the shards an interrupted call left beside it.

    `on_progress` is called as shards are finished.

    Raises:
        ValueError: the task is unknown, has no expert, or cannot be recorded so.
        DatasetError: `path` holds a dataset made otherwise, the expert keeps failing, or workers keep dying.
        LockedError: another process collects there.
    """
    find_task(task).make_expert()
    folder = path.with_name(f"{path.name}.shards")
    with nullcontext() if path.exists() else hold_folder(folder):
        return _collect(task, config, path, folder, on_progress)


def _collect(task: str, config: CollectConfig, path: Path, folder: Path, on_progress: OnProgress | None) -> Dataset:
    spec = find_task(task)
    content = _content(config, spec)
    if path.exists():
        done = open_dataset(path)
        if not _same(done, content):
            raise DatasetError(
                f"{path}: holds a dataset collected with other settings, or of another version of the task; "
                "choose another --out or remove it"
            )
        shutil.rmtree(folder, ignore_errors=True)  # left by a call that ended between joining and tidying up
        return done
    parts = {}
    for shard in range(config.shards):
        try:
            parts[shard] = open_dataset(_part(folder, shard))
        except DatasetError:  # not there, or damaged: it is collected again
            shutil.rmtree(_part(folder, shard), ignore_errors=True)
    if not all(_same(part, content) for part in parts.values()):
        raise DatasetError(
            f"{folder}: left by a collection with other settings, or of another version of the task; remove it"
        )
    started, frames = time.monotonic(), 0

    def report() -> None:
        if on_progress is not None:
            failures = sum(int(p.header["failures"]) for p in parts.values())
            rate = frames / max(time.monotonic() - started, 1e-9)
            on_progress(sum(p.episodes for p in parts.values()), failures, rate)

    report()
    todo = deque(shard for shard in range(config.shards) if shard not in parts)
    tries = dict.fromkeys(todo, 0)
    workers = min(config.workers or usable_cores(), max(len(todo), 1))
    for answer in run_jobs(todo, _prepare, (task, config, folder), workers=workers, timeout=config.timeout):
        if isinstance(answer, Lost):
            tries[answer.job] += 1
            if tries[answer.job] == TRIES:
                at = "" if answer.item == NOTHING else f" (seed {answer.item})"
                raise DatasetError(f"{folder}: {answer.reason}{at}; finished shards are kept, run again")
            todo.append(answer.job)
            continue
        shard, _ = answer
        parts[shard] = open_dataset(_part(folder, shard), verify=False)
        frames += parts[shard].steps
        report()
    ordered = [parts[shard] for shard in sorted(parts)]
    left_out = ("schema_version", "files", "steps", "instructions", "failures", "sha256")
    header = {k: v for k, v in ordered[0].header.items() if k not in left_out}
    header["failures"] = sum(int(p.header["failures"]) for p in ordered)
    merge_datasets(path, ordered, header)
    shutil.rmtree(folder)
    return open_dataset(path, verify=False)


def _part(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}"


def _content(config: CollectConfig, spec: TaskSpec) -> dict[str, Any]:
    """What decides the data."""
    return {**config.content(spec.name), "version": spec.version}


def _same(data: Dataset, content: dict[str, Any]) -> bool:
    """Whether a dataset was collected with these settings. One that it does not mention did not exist then, and counts
    as left at its default.
    """
    before = data.header.get("collection")
    usual = {**CollectConfig().content(data.header["task"]), "version": 1}
    return isinstance(before, dict) and {**usual, **before} == content


def _prepare(pulse: Pulse, setup: tuple[str, CollectConfig, Path]) -> Callable[[int], None]:
    """In a worker: makes the environment once; what it returns collects one shard."""
    task, config, folder = setup
    spec = find_task(task)
    env = make_task(task, cameras=config.cameras, size=config.size, randomise=config.randomise)
    check_contract(env, spec, config.cameras, config.size)
    scout = None
    if "no_cameras" in spec.takes:
        scout = make_task(task, cameras=(), size=config.size, labels=False, randomise=config.randomise)
    demonstrator = Demonstrator(env, spec, config, scout)
    header = {
        "task": task,
        "collection": _content(config, spec),
        "cameras": list(config.cameras),
        "action_names": list(spec.action_names),
        "agent_pos_names": list(spec.agent_pos_names),
        "control_hz": spec.control_hz,
        "versions": {name: version(name) for name in VERSIONED},
        "gl_renderer": offers(env, "gl_renderer") or "",
    }

    def handle(shard: int) -> None:
        wanted = min(SHARD_EPISODES, config.episodes - shard * SHARD_EPISODES)
        seeds = [
            collection_seed(config.split, config.seed, shard * SHARD_SEEDS + attempt) for attempt in range(SHARD_SEEDS)
        ]
        with _shard_writer(_part(folder, shard), header) as writer:
            kept = len(writer.seeds)
            begun = seeds.index(writer.seeds[-1]) + 1 if kept else 0
            failures = begun - kept
            for seed in seeds[begun:]:
                episode = demonstrator.demonstrate(seed, pulse.beat)
                if episode is None or not episode.success:
                    failures += 1
                    continue
                writer.add(episode)
                kept += 1
                if kept == wanted:
                    break
            if kept == wanted:
                writer.finish({"failures": failures})
                return
        raise DatasetError(f"task {task}: only {kept} of {SHARD_SEEDS} episodes succeed at this noise")

    return handle


def _shard_writer(path: Path, header: dict[str, Any]) -> DatasetWriter:
    """A writer that goes on with the episodes that a killed worker left."""
    try:
        return DatasetWriter(path, header, resume=True)
    except OtherHeaderError:  # other settings or versions: episodes of both must not be mixed
        shutil.rmtree(path.with_name(f"{path.name}{PARTIAL}"))
        return DatasetWriter(path, header)
