"""Demonstrations: parallel workers run the expert under injected noise and write shards, which are then joined.

Shard k always holds the same episodes, whatever the number of workers, so that an interrupted collection goes on
where it stopped. The executed action carries noise while clean ones are stored as labels (DART, Laskey et al. 2017):
the policy sees how to recover from states the expert alone would never visit. Labels are stored for every object of
the scene, as if it had been the one to go to.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.collect import SHARD_EPISODES, SHARD_SEEDS, CollectConfig
from configs.seeds import collection_seed
from envs.cores import usable_cores
from envs.tabletop.objects import SLOTS
from envs.task import check_task, make_task
from envs.workers import start_worker
from training.data.episodes import Dataset, DatasetError, Episode, merge_datasets, open_dataset, write_dataset

if TYPE_CHECKING:
    from envs.tabletop.env import TabletopEnv

DETOUR_STEPS = (10, 38)  # control steps; success must still be possible after them
NOISE_CORRELATION = 0.75  # of the noise from one control step to the next


def run_expert(env: TabletopEnv, seed: int, noise: float, detours: float = 0.0, plan_steps: int = 8) -> Episode | None:
    """One episode of the expert under noise and, with probability `detours`, after a detour.

    Returns None when the simulation became unstable.
    """
    from envs.tabletop.plans import EXPERTS, plan
    from envs.tabletop.situation import Situation

    expert = EXPERTS[env.task]
    rng = np.random.default_rng((seed, 1))
    level = noise * rng.uniform()  # standard deviation of the noise
    fresh = level * np.sqrt(1 - NOISE_CORRELATION**2)
    drift = np.zeros(len(env.action_names))
    detour = rng.integers(*DETOUR_STEPS) if rng.uniform() < detours else 0
    observation, info = env.reset(seed=seed)
    views, shown, target = len(env.cameras), len(env.layout.objects), env.layout.target
    rows: dict[str, np.ndarray] = {
        "pixels": np.empty((env.horizon, views, env.size, env.size, 3), np.uint8),
        "agent_pos": np.empty((env.horizon, len(observation["agent_pos"])), np.float32),
        "executed": np.empty((env.horizon, len(drift)), np.float32),
        "boxes": np.zeros((env.horizon, views, SLOTS, 4), np.float32),
        "visible": np.zeros((env.horizon, views, SLOTS), np.bool_),
    }
    known = {
        "positions": np.empty((env.horizon, shown, 3)),
        "velocities": np.empty((env.horizon, shown, 2)),
        "active": np.empty((env.horizon, shown), np.bool_),
    }
    hands = np.empty((env.horizon, 3))
    others = [i for i in range(shown) if i != target]
    stray = others[rng.integers(len(others))]
    done = False
    while not done:
        step, secret = env.step_count, info["privileged"]
        meant = expert(Situation.of(secret))[stray if step < detour else target]
        drift = NOISE_CORRELATION * drift + fresh * rng.standard_normal(len(drift))
        executed = np.clip(meant + drift, -1, 1).astype(np.float32)
        rows["agent_pos"][step], rows["executed"][step] = observation["agent_pos"], executed
        hands[step] = secret["hand"]
        for name, values in known.items():
            values[step] = secret[name]
        for view, name in enumerate(env.cameras):
            rows["pixels"][step, view] = observation["pixels"][name]
            rows["boxes"][step, view, :shown] = secret["boxes"][name]
            rows["visible"][step, view, :shown] = secret["visible"][name]
        observation, _, terminated, truncated, info = env.step(executed)
        done = terminated or truncated
    if not info["stable"]:
        return None
    length = env.step_count
    action = np.zeros((length, SLOTS, plan_steps, len(drift)), np.float32)
    action[:, :shown] = plan(
        expert,
        env.action_names,
        positions=known["positions"][:length],
        velocities=known["velocities"][:length],
        half_heights=info["privileged"]["half_heights"],
        hands=hands[:length],
        steps=plan_steps,
        active=known["active"][:length],
        kinds=info["privileged"]["kinds"],
    )
    events = np.tile((0, length), (SLOTS, 1))
    events[:shown] = np.minimum(env.events, length)
    return Episode(
        seed=seed,
        instructions=_instructions(env, rng),
        target=target,
        success=info["is_success"],
        action=action,
        events=events,
        **{name: values[:length] for name, values in rows.items()},
    )


def _instructions(env: TabletopEnv, rng: np.random.Generator) -> tuple[str | None, ...]:
    """One text a slot: the episode's own for the target, None where there is no object, or no words for it."""
    texts: list[str | None] = [None] * SLOTS
    for index, words in enumerate(env.layout.referents):
        if words is not None:
            texts[index] = env.instruction_for(index, "train", rng)
    texts[env.layout.target] = env.instruction
    return tuple(texts)


def collect(
    task: str, config: CollectConfig, path: Path, *, on_progress: Callable[[int, int, float], None] | None = None
) -> Dataset:
    """Collect a task's dataset at `path`, going on from the shards an interrupted call left beside it.

    `on_progress(episodes, failures, frames_per_second)` is called as shards are finished.

    Raises:
        ValueError: the task is unknown.
        DatasetError: `path` holds a dataset made otherwise, or the expert keeps failing.
    """
    check_task(task)
    content = config.content(task)
    parts_folder = path.with_name(f"{path.name}.shards")
    if path.exists():
        done = open_dataset(path)
        if done.header.get("collection") != content:
            raise DatasetError(
                f"{path}: holds a dataset collected with other settings; choose another --out or remove it"
            )
        shutil.rmtree(parts_folder, ignore_errors=True)  # left by a call that ended between joining and tidying up
        return done
    parts_folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    todo = []
    for shard in range(config.shards):
        try:
            parts[shard] = open_dataset(parts_folder / f"{shard:05d}")
            if parts[shard].header.get("collection") != content:
                raise DatasetError(f"{parts_folder}: left by a collection with other settings; remove it")
        except DatasetError:
            if (parts_folder / f"{shard:05d}").exists():
                raise
            todo.append(shard)
    started = time.monotonic()
    frames = 0

    def report() -> None:
        if on_progress is not None:
            failures = sum(int(p.header["failures"]) for p in parts.values())
            rate = frames / max(time.monotonic() - started, 1e-9)
            on_progress(sum(p.episodes for p in parts.values()), failures, rate)

    report()
    with _pool(min(config.workers or usable_cores(), max(len(todo), 1))) as pool:
        waiting: set[Future[int]] = {pool.submit(_collect_shard, task, config, parts_folder, shard) for shard in todo}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    shard = future.result()
                    parts[shard] = open_dataset(parts_folder / f"{shard:05d}", verify=False)
                    frames += parts[shard].steps
                    report()
        except BrokenProcessPool:
            raise DatasetError(
                f"{parts_folder}: a worker died (out of memory, or killed); finished shards are kept, run again"
            ) from None
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
    ordered = [parts[shard] for shard in sorted(parts)]
    header = {k: v for k, v in ordered[0].header.items() if k not in ("files", "instructions", "failures")}
    header["failures"] = sum(int(p.header["failures"]) for p in ordered)
    merge_datasets(path, ordered, header)
    shutil.rmtree(parts_folder)
    return open_dataset(path, verify=False)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that start clean (no GL context or threads inherited) and leave interrupts to the parent."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect_shard(task: str, config: CollectConfig, folder: Path, shard: int) -> int:
    env = _worker_env(task, config)
    episodes: list[Episode] = []
    failures = 0
    wanted = min(SHARD_EPISODES, config.episodes - shard * SHARD_EPISODES)
    for attempt in range(SHARD_SEEDS):
        if len(episodes) == wanted:
            break
        seed = collection_seed(config.split, config.seed, shard * SHARD_SEEDS + attempt)
        episode = run_expert(env, seed, config.noise, config.detours, config.plan_steps)
        if episode is None or not episode.success:
            failures += 1
        else:
            episodes.append(episode)
    else:
        raise DatasetError(f"task {task}: only {len(episodes)} of {SHARD_SEEDS} episodes succeed at this noise")
    write_dataset(folder / f"{shard:05d}", episodes, _header(config, env, failures))
    return shard


_ENV: dict[str, TabletopEnv] = {}


def _worker_env(task: str, config: CollectConfig) -> TabletopEnv:
    """The worker's environment, made once a process: it owns the GL context."""
    if "env" not in _ENV:
        _ENV["env"] = make_task(task, cameras=config.cameras, size=config.size, randomise=config.randomise)
    return _ENV["env"]


def _header(config: CollectConfig, env: TabletopEnv, failures: int) -> dict[str, Any]:
    from importlib.metadata import version

    from envs.tabletop.arm import AGENT_POS_NAMES
    from envs.tabletop.scene import CONTROL_HZ

    return {
        "task": env.task,
        "collection": config.content(env.task),
        "cameras": list(config.cameras),
        "action_names": list(env.action_names),
        "agent_pos_names": list(AGENT_POS_NAMES),
        "control_hz": CONTROL_HZ,
        "failures": failures,
        "versions": {name: version(name) for name in ("mujoco", "gymnasium", "numpy")},
        "gl_renderer": env.gl_renderer,
    }
