"""Demonstrations: parallel workers run the expert under injected noise and write shards, which are then joined.

Shard k always holds the same episodes, whatever the number of workers, so that an interrupted collection goes on
where it stopped. The executed action carries noise while clean ones are stored as labels (DART, Laskey et al. 2017):
the policy sees how to recover from states the expert alone would never visit.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from configs.collect import SHARD_EPISODES, SHARD_SEEDS, CollectConfig
from configs.seeds import collection_seed
from envs.actors import NoisyExpert
from envs.contract import check_contract
from envs.cores import usable_cores
from envs.rollout import Beat, Scenario, run
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
        expert = expert_of(spec, config)
        self._env, self._scout, self._names = env, scout, spec.action_names
        self._scenario = told_other(env, config.counterfactual)
        self._actor = actor = NoisyExpert(expert, config.noise, config.detours)
        self._recorder = EpisodeRecorder(
            config.cameras, expert, config.plan_steps, label=lambda _: actor.clean, rng=lambda _: actor.rng
        )

    def demonstrate(self, seed: int, beat: Beat | None = None) -> Episode | None:
        """The episode of this environment seed, None if the simulation became unstable or the scout failed."""
        own = None if beat is None else lambda *_: beat(seed)  # all that is done is done for this seed
        scenario = self._scenario(seed)
        if self._scout is not None:
            [tried] = run([self._scout], [seed], self._actor, action_names=self._names, scenario=scenario, beat=own)
            if not tried.info["is_success"]:
                return None
        run([self._env], [seed], self._actor, [self._recorder], action_names=self._names, scenario=scenario, beat=own)
        return self._recorder.episode


def expert_of(spec: TaskSpec, config: CollectConfig) -> Any:
    """Who demonstrates.

    Raises:
        ValueError: nobody does, or what was learned is not for this task.
    """
    if not config.expert:
        return spec.make_expert()
    from training.reinforcement.expert import load_expert

    return load_expert(config.expert, spec)


def told_other(env: Env, share: float) -> Callable[[int], Scenario | None]:
    """How the episode of a seed begins, if in a share of them the other thing is told that can be done in the scene;
    where the environment does not offer that, all begin as usual.
    """
    can = "other" in (offers(env, "reset_options") or {}).get("told", ())

    def scenario(seed: int) -> Scenario | None:
        other = can and np.random.default_rng((seed, 6)).random() < share
        return Scenario(options={"told": "other"}) if other else None

    return scenario


def collect(task: str, config: CollectConfig, path: Path, *, on_progress: OnProgress | None = None) -> Dataset:
    """Collect a task's dataset at `path`, going on from the shards an interrupted call left beside it.

    `on_progress` is called as shards are finished.

    Raises:
        ValueError: the task is unknown, has no expert, or cannot be recorded so.
        DatasetError: `path` holds a dataset made otherwise, the expert keeps failing, or workers keep dying.
        LockedError: another process collects there.
    """
    spec = find_task(task)
    expert_of(spec, config)
    setup = (task, config, shards_of(path))
    return collect_shards(path, config, content_of(config, spec), _prepare, setup, on_progress=on_progress)


def collect_shards(
    path: Path,
    config: CollectConfig,
    content: dict[str, Any],
    prepare: Callable[[Pulse, Any], Callable[[int], None]],
    setup: Any,
    *,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Have workers write all shards that are not there yet, and join them at `path`.

    Args:
        content: what decides the data; each shard's header has it as `collection`.
        prepare: called in every worker as `prepare(pulse, setup)`; what it returns writes one shard, see `write_shard`.

    Raises:
        ValueError: what was asked for cannot be done.
        DatasetError: `path` holds a dataset made otherwise, episodes keep failing, or workers keep dying.
        LockedError: another process collects there.
    """
    folder = shards_of(path)
    with nullcontext() if path.exists() else hold_folder(folder):
        return _collect_shards(path, folder, config, content, prepare, setup, on_progress)


def _collect_shards(
    path: Path,
    folder: Path,
    config: CollectConfig,
    content: dict[str, Any],
    prepare: Callable[[Pulse, Any], Callable[[int], None]],
    setup: Any,
    on_progress: OnProgress | None,
) -> Dataset:
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
    for answer in run_jobs(todo, prepare, setup, workers=workers, timeout=config.timeout):
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


def shards_of(path: Path) -> Path:
    """Where the shards of a dataset are while it is being collected."""
    return path.with_name(f"{path.name}.shards")


def write_shard(
    folder: Path,
    shard: int,
    config: CollectConfig,
    header: dict[str, Any],
    episodes: Callable[[Iterator[int]], Iterator[Episode | None]],
    *,
    keep_failures: bool = False,
) -> None:
    """Write one shard, going on with the episodes that a killed worker left.

    Args:
        header: of the dataset; the number of failures comes to it.
        episodes: the episode of each of these environment seeds, in their order; None where there is nothing to keep.
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
        for episode in () if kept == wanted else episodes(iter(seeds[begun:])):
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
    what = "end with a stable simulation" if keep_failures else "succeed at this noise"
    raise DatasetError(f"task {header['task']}: only {kept} of {SHARD_SEEDS} episodes {what}")


def wanted_of(config: CollectConfig, shard: int) -> int:
    """Episodes that a shard is to hold."""
    return min(SHARD_EPISODES, config.episodes - shard * SHARD_EPISODES)


def describe_dataset(env: Env, spec: TaskSpec, config: CollectConfig, content: dict[str, Any]) -> dict[str, Any]:
    """What the header of a collected dataset says of it."""
    return {
        "task": spec.name,
        "collection": content,
        "cameras": list(config.cameras),
        "action_names": list(spec.action_names),
        "agent_pos_names": list(spec.agent_pos_names),
        "control_hz": spec.control_hz,
        "versions": {name: version(name) for name in VERSIONED},
        "gl_renderer": offers(env, "gl_renderer") or "",
    }


def _part(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}"


def content_of(config: CollectConfig, spec: TaskSpec) -> dict[str, Any]:
    """What decides the data; of an expert that was learned, its weights."""
    content = {**config.content(spec.name), "version": spec.version}
    if config.expert:
        from training.reinforcement.expert import expert_print

        content["expert"] = expert_print(config.expert)
    return content


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
    if "no_cameras" in spec.takes and not hasattr(expert_of(spec, config), "plan"):  # those that plan seldom fail
        scout = make_task(task, cameras=(), size=config.size, labels=False, randomise=config.randomise)
    demonstrator = Demonstrator(env, spec, config, scout)
    header = describe_dataset(env, spec, config, content_of(config, spec))

    def episodes(seeds: Iterator[int]) -> Iterator[Episode | None]:
        return (demonstrator.demonstrate(seed, pulse.beat) for seed in seeds)

    return lambda shard: write_shard(folder, shard, config, header, episodes)


def _shard_writer(path: Path, header: dict[str, Any]) -> DatasetWriter:
    """A writer that goes on with the episodes that a killed worker left."""
    try:
        return DatasetWriter(path, header, resume=True)
    except OtherHeaderError:  # other settings or versions: episodes of both must not be mixed
        shutil.rmtree(path.with_name(f"{path.name}{PARTIAL}"))
        return DatasetWriter(path, header)
