"""`vla eval`: N unseen seeds a task under every chosen condition, in parallel, into one `Results`."""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from configs.evaluation import EvalConfig, RunnerConfig
from configs.seeds import split_seed
from envs.cores import usable_cores
from envs.task import make_task
from envs.workers import Lost, Pulse, run_jobs
from eval.controls import CONTROLS, choose_controls
from eval.results import POLICY, CheckpointInfo, EpisodeResult, Results, TaskResult, summarise_condition
from eval.rollout import GROUP, action_index, control_rate, run_group
from vla_policy.checkpoint import Checkpoint, given_name, load_checkpoint
from vla_policy.runner import PolicyRunner

if TYPE_CHECKING:
    from envs.tabletop.env import TabletopEnv

VERSIONED = ("torch", "mujoco", "gymnasium", "numpy", "transformers")
GIVE_UP = 3  # groups lost before any was finished: then it is not the episodes


class EvaluationError(ValueError):
    """An evaluation that cannot run at all; the message says what stopped its workers."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    task: str
    condition: str
    seeds: tuple[int | None, ...]


OnProgress = Callable[[str, str, int, int], None]  # task, condition, finished episodes, all episodes
OnCondition = Callable[[Results], None]


def evaluate(
    checkpoint_path: Path,
    config: EvalConfig,
    *,
    on_progress: OnProgress | None = None,
    on_condition: OnCondition | None = None,
) -> Results:
    """Evaluate a checkpoint.

    Args:
        on_progress: called after every group of episodes.
        on_condition: called after every condition with the results of those that are finished, so that they can be
            saved: an interruption then costs the unfinished ones only.

    Raises:
        ValueError: the checkpoint cannot be loaded or cannot do a task.
        EvaluationError: no episode could be finished.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    tasks = config.tasks or checkpoint.purpose.tasks
    conditions = choose_controls(config.controls)
    renderer, rates = _try_tasks(checkpoint, tasks, config.seed)
    found: dict[tuple[str, str], list[EpisodeResult]] = {(t, c): [] for t in tasks for c in conditions}

    def finished() -> Results:
        done = {key: episodes for key, episodes in found.items() if len(episodes) == config.episodes}
        results = {}
        for task in tasks:
            policy = done.get((task, POLICY))
            summaries = {
                name: summarise_condition(name, episodes, policy=policy)
                for (of, name), episodes in done.items()
                if of == task
            }
            results[task] = TaskResult(control_rate_hz=rates[task], conditions=summaries)
        return Results(
            checkpoint=CheckpointInfo(path=given_name(checkpoint_path), provenance=checkpoint.provenance),
            seed=config.seed,
            tasks=results,
            settings=_settings(config, tasks),
            versions={"python": platform.python_version(), **{name: version(name) for name in VERSIONED}},
            gl_renderer=renderer,
            complete=len(done) == len(found),
        )

    jobs = [_Job(task=task, condition=name, seeds=seeds) for task, name in found for seeds in _groups(config)]
    for job, episodes in _finish_all(jobs, checkpoint_path, config):
        of_condition = found[job.task, job.condition]
        of_condition += episodes
        if on_progress:
            on_progress(job.task, job.condition, sum(map(len, found.values())), len(found) * config.episodes)
        if on_condition and len(of_condition) == config.episodes:
            on_condition(finished())
    return finished()


def _groups(config: EvalConfig) -> Iterator[tuple[int | None, ...]]:
    seeds: list[int | None] = [split_seed("test", config.seed + i) for i in range(config.episodes)]
    seeds += [None] * (-len(seeds) % GROUP)
    for start in range(0, len(seeds), GROUP):
        yield tuple(seeds[start : start + GROUP])


def _finish_all(jobs: list[_Job], path: Path, config: EvalConfig) -> Iterator[tuple[_Job, list[EpisodeResult]]]:
    """Run all jobs. A seed whose worker hung, died or failed is reported as invalid, and its group runs again without
    it; where no single seed is to blame, all of the group's are.
    """
    waiting = deque(jobs)
    workers = min(config.workers or usable_cores(), len(jobs))
    finished, lost, reason = 0, 0, ""
    for answer in run_jobs(waiting, _prepare, (path, config.runner), workers=workers, timeout=config.timeout):
        if not isinstance(answer, Lost):
            finished += 1
            yield answer
            continue
        lost, reason = lost + 1, answer.reason
        if not finished and lost == GIVE_UP:
            break
        job = answer.job
        guilty = [answer.item] if answer.item in job.seeds else [seed for seed in job.seeds if seed is not None]
        yield job, [EpisodeResult(seed=seed, success=False, valid=False, failure=reason) for seed in guilty]
        rest = tuple(None if seed in guilty else seed for seed in job.seeds)
        if any(seed is not None for seed in rest):
            waiting.appendleft(replace(job, seeds=rest))
    if not finished:
        raise EvaluationError(f"no episode could be finished: {reason}; `vla doctor` looks for what is missing")


def _prepare(pulse: Pulse, setup: tuple[Path, RunnerConfig]) -> Callable[[_Job], list[EpisodeResult]]:
    """In a worker: loads the policy once; what it returns keeps the environments of the task it works on."""
    # One thread a worker: the same arithmetic for any number of workers, and no fight for cores.
    torch.set_num_threads(1)
    path, config = setup
    checkpoint = load_checkpoint(path)
    controller = PolicyRunner(checkpoint, GROUP, config)
    policy = checkpoint.policy
    kept: dict[tuple[str, bool], list[TabletopEnv]] = {}

    def forget() -> None:
        for env in [env for envs in kept.values() for env in envs]:
            env.close()
        kept.clear()

    def handle(job: _Job) -> list[EpisodeResult]:
        wants_boxes = job.condition in (POLICY, "shuffled_instruction")
        key = (job.task, wants_boxes)
        try:
            if key not in kept:
                forget()
                kept[key] = []
                for _ in range(GROUP):
                    labels = "boxes" if wants_boxes else "none"
                    env = make_task(job.task, cameras=policy.config.cameras, size=policy.shapes.size, labels=labels)
                    kept[key].append(env)
                    pulse.beat()
            return run_group(checkpoint, controller, kept[key], job.seeds, CONTROLS[job.condition], beat=pulse.beat)
        except Exception:
            forget()  # whatever state they are in
            raise

    return handle


def _try_tasks(checkpoint: Checkpoint, tasks: tuple[str, ...], seed: int) -> tuple[str, dict[str, float]]:
    """Make every task in this process, which fails early if one cannot be made or done.

    Returns the GL renderer's name and every task's control rate, measured while no worker needs the cores.
    """
    renderer, rates = "", {}
    for task in tasks:
        env = make_task(task, cameras=checkpoint.policy.config.cameras, size=checkpoint.policy.shapes.size)
        try:
            action_index(checkpoint, env)
            renderer = env.gl_renderer
            rates[task] = control_rate(checkpoint, env, split_seed("test", seed))
        finally:
            env.close()
    return renderer, rates


def _settings(config: EvalConfig, tasks: tuple[str, ...]) -> dict[str, Any]:
    from envs.tabletop.scene import CONTROL_HZ
    from envs.tabletop.tasks import TASKS

    return {
        "episodes": config.episodes,
        "runner": asdict(config.runner),
        "control_hz": CONTROL_HZ,
        "criteria": {task: TASKS[task].criterion for task in tasks},
        "tolerance_m": {task: TASKS[task].tolerance for task in tasks},
    }
