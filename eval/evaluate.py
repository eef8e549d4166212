"""`vla eval`: N unseen seeds a task under every chosen condition, in parallel, into one `Results`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from envs.episode import split_seed
from envs.registration import check_task, make_task
from eval.controller import Controller, ControllerConfig
from eval.controls import CONTROLS
from eval.results import POLICY, CheckpointInfo, EpisodeResult, Results, TaskResult, summarise_condition
from eval.rollout import GROUP, GroupOutcome, run_group
from eval.workers import NOTHING, Lost, run_jobs, serve
from vla_policy.checkpoint import Checkpoint, load_checkpoint

VERSIONED = ("torch", "mujoco", "gymnasium", "numpy", "transformers")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What to evaluate.

    Args:
        tasks: tasks by name; empty takes those the policy was trained on.
        episodes: episodes a condition; 200 or more for a figure worth quoting.
        seed: first seed within the test range, which training can never reach.
        workers: processes; 0 takes one a core. Outcomes do not depend on it.
        controls: conditions beside the plain policy.
        timeout: seconds without any progress after which a worker counts as hung.
        controller: how predicted chunks are executed.
    """

    tasks: tuple[str, ...] = ()
    episodes: int = 200
    seed: int = 0
    workers: int = 0
    controls: tuple[str, ...] = ("shuffled_instruction",)
    timeout: float = 120.0
    controller: ControllerConfig = field(default_factory=ControllerConfig)

    def __post_init__(self) -> None:
        for task in self.tasks:
            check_task(task)
        if self.episodes < 1:
            raise ValueError(f"episodes {self.episodes} must be at least 1")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers} must be 0 (one a core) or more")
        if self.timeout <= 0:
            raise ValueError(f"timeout {self.timeout} must be above 0 seconds")
        split_seed("test", self.seed + self.episodes - 1)
        split_seed("test", self.seed)


@dataclass(frozen=True, kw_only=True)
class _Job:
    task: str
    condition: str
    seeds: tuple[int | None, ...]


OnProgress = Callable[[str, str, int, int], None]  # task, condition, finished episodes, all episodes


def evaluate(checkpoint_path: Path, config: EvalConfig, *, on_progress: OnProgress | None = None) -> Results:
    """Evaluate a checkpoint.

    Raises:
        ValueError: the checkpoint cannot be loaded or cannot do a task.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    tasks = config.tasks or checkpoint.purpose.tasks
    conditions = (POLICY, *(name for name in config.controls if name != POLICY))
    renderer = _check_tasks(checkpoint, tasks)
    jobs = [
        _Job(task=task, condition=name, seeds=seeds)
        for task in tasks
        for name in conditions
        for seeds in _groups(config)
    ]
    found: dict[tuple[str, str], list[EpisodeResult]] = {(t, c): [] for t in tasks for c in conditions}
    deciding: dict[tuple[str, str], list[float]] = {key: [0.0, 0.0] for key in found}
    for job, outcome in _finish_all(jobs, checkpoint_path, config):
        key = (job.task, job.condition)
        found[key] += outcome.episodes
        deciding[key][0] += outcome.decisions
        deciding[key][1] += outcome.seconds
        if on_progress:
            on_progress(*key, sum(map(len, found.values())), len(found) * config.episodes)
    results = {}
    for task in tasks:
        policy = found[task, POLICY]
        summaries = {}
        for name in conditions:
            decisions, seconds = deciding[task, name]
            summaries[name] = summarise_condition(
                name,
                found[task, name],
                policy=None if name == POLICY else policy,
                control_rate_hz=decisions / seconds if seconds and name != "expert" else None,
            )
        results[task] = TaskResult(conditions=summaries)
    return Results(
        checkpoint=CheckpointInfo(path=str(checkpoint_path), provenance=checkpoint.provenance),
        seed=config.seed,
        tasks=results,
        settings=_settings(config, tasks),
        versions={"python": platform.python_version(), **{name: version(name) for name in VERSIONED}},
        gl_renderer=renderer,
    )


def _groups(config: EvalConfig) -> Iterator[tuple[int | None, ...]]:
    seeds: list[int | None] = [split_seed("test", config.seed + i) for i in range(config.episodes)]
    seeds += [None] * (-len(seeds) % GROUP)
    for start in range(0, len(seeds), GROUP):
        yield tuple(seeds[start : start + GROUP])


def _finish_all(jobs: list[_Job], path: Path, config: EvalConfig) -> Iterator[tuple[_Job, GroupOutcome]]:
    """Run all jobs; a seed whose worker hung or died is reported as invalid, and its group runs again without it."""
    workers = min(config.workers or os.cpu_count() or 1, len(jobs))
    work = partial(run_jobs, work=_work, setup=(path, config.controller), workers=workers, timeout=config.timeout)
    while jobs:
        again: list[_Job] = []
        for answer in work(jobs):
            if not isinstance(answer, Lost):
                yield answer
                continue
            guilty = [s for s in answer.job.seeds if s is not None]
            if answer.mark != NOTHING:
                guilty = [answer.mark]
            lost = [EpisodeResult(seed=seed, success=False, valid=False, failure=answer.reason) for seed in guilty]
            yield answer.job, GroupOutcome(episodes=lost, decisions=0, seconds=0.0)
            rest = tuple(None if seed in guilty else seed for seed in answer.job.seeds)
            if any(seed is not None for seed in rest):
                again.append(_Job(task=answer.job.task, condition=answer.job.condition, seeds=rest))
        jobs = again


def _work(pipe: Connection, mark: Any, setup: tuple[Path, ControllerConfig]) -> None:
    """A worker: loads the policy once and keeps the environments of the task it works on."""
    # One thread a worker: the same arithmetic for any number of workers, and no fight for cores.
    torch.set_num_threads(1)
    path, config = setup
    state: dict[str, Any] = {}

    def note(seed: int) -> None:
        mark.value = seed

    def handle(job: _Job) -> GroupOutcome:
        if not state:
            state["checkpoint"] = load_checkpoint(path)
            state["controller"] = Controller(state["checkpoint"], GROUP, config)
        wants_boxes = job.condition in (POLICY, "shuffled_instruction")
        key = (job.task, wants_boxes)
        if state.get("key") != key:
            for env in state.get("envs", []):
                env.close()
            policy = state["checkpoint"].policy
            state["envs"] = [
                make_task(
                    job.task,
                    cameras=policy.config.cameras,
                    size=policy.shapes.size,
                    labels="boxes" if wants_boxes else "none",
                )
                for _ in range(GROUP)
            ]
            state["key"] = key
        condition = CONTROLS[job.condition]
        return run_group(state["checkpoint"], state["controller"], state["envs"], job.seeds, condition, on_seed=note)

    serve(pipe, handle)


def _check_tasks(checkpoint: Checkpoint, tasks: tuple[str, ...]) -> str:
    """Fail early and in this process if a task cannot be made or done; returns the GL renderer's name."""
    from eval.rollout import action_index

    name = ""
    for task in tasks:
        env = make_task(task, cameras=checkpoint.policy.config.cameras, size=checkpoint.policy.shapes.size)
        try:
            action_index(checkpoint, env)
            name = env.gl_renderer
        finally:
            env.close()
    return name


def _settings(config: EvalConfig, tasks: tuple[str, ...]) -> dict[str, Any]:
    from envs.scene import CONTROL_HZ
    from envs.tasks import TASKS

    return {
        "episodes": config.episodes,
        "controller": asdict(config.controller),
        "control_hz": CONTROL_HZ,
        "criteria": {task: TASKS[task].criterion for task in tasks},
        "tolerance_m": {task: TASKS[task].tolerance for task in tasks},
    }
