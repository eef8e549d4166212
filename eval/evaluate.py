"""`vla eval`: N unseen seeds a task under every chosen condition, in parallel, into one `Results`."""

from __future__ import annotations

import platform
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from configs.evaluation import EvalConfig, RunnerConfig
from configs.seeds import split_seed
from envs.cores import usable_cores
from envs.rollout import run
from envs.task import Env, TaskSpec, find_task, find_tasks, instruction_of, make_task, offers
from envs.workers import Lost, Pulse, run_jobs
from eval.acting import GROUP, make_actor, make_task_for, seconds_per_call
from eval.controls import CONTROLS, choose_controls
from eval.outcome import OutcomeRecorder
from eval.results import POLICY, CheckpointInfo, EpisodeResult, Results, TaskResult, summarise_condition
from eval.words import unread_words
from vla_policy.checkpoint import Checkpoint, given_name, load_checkpoint, weights_digest
from vla_policy.runner import PolicyRunner

VERSIONED = ("torch", "transformers")
GIVE_UP = 3  # groups, or single seeds, lost before any was finished: then it is not the episodes
TIMED = 20  # decisions


class EvaluationError(ValueError):
    """An evaluation that cannot run at all; the message says what stopped its workers."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One group of episodes, each with its place in the batch; `again`: one that a worker was lost over, alone."""

    task: str
    condition: str
    seeds: tuple[int | None, ...]
    again: bool = False


OnProgress = Callable[[str, str, int, int], None]  # task, condition, finished episodes, all episodes
OnCondition = Callable[[Results], None]
TakeUp = Callable[[Results], Results | None]


def evaluate(
    checkpoint_path: Path,
    config: EvalConfig,
    *,
    split: str = "test",
    on_progress: OnProgress | None = None,
    on_condition: OnCondition | None = None,
    take_up: TakeUp | None = None,
) -> Results:
    """Evaluate a checkpoint.

    Args:
        split: whose seeds: "validation" for what is looked at while training goes on, so that nothing is chosen by the
            test seeds.
        on_progress: called after every group of episodes.
        on_condition: called after every condition with the results of those that are finished, so that they can be
            saved: an interruption then costs the unfinished ones only.
        take_up: called before the first episode with the evaluation that is asked for, which has no conditions yet;
            those of what it returns are taken as they are. It may raise ValueError to stop.

    Raises:
        ValueError: the checkpoint cannot be loaded or cannot do a task.
        EvaluationError: no episode could be finished.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    tasks = find_tasks(config.tasks or checkpoint.purpose.tasks)
    tried = {task: _try_task(checkpoint, task, config, split) for task in tasks}
    conditions = {task: [name for name in tried[task].conditions if not tried[task].conditions[name]] for task in tasks}
    found: dict[tuple[str, str], list[EpisodeResult]] = {(t, c): [] for t in tasks for c in conditions[t]}

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
            results[task] = TaskResult(control_rate_hz=tried[task].rate, conditions=summaries)
        return Results(
            checkpoint=CheckpointInfo(
                path=given_name(checkpoint_path),
                provenance=checkpoint.provenance,
                weights=weights_digest(checkpoint_path),
            ),
            seed=config.seed,
            tasks=results,
            settings={**_settings(config, tried), "split": split, "unread_words": _unread(checkpoint, done)},
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in VERSIONED},
                **{name: found for each in tried.values() for name, found in each.spec.versions().items()},
            },
            gl_renderer=next((t.renderer for t in tried.values() if t.renderer), ""),
            complete=len(done) == len(found),
        )

    before = take_up(finished()) if take_up else None
    for (task, name), episodes in found.items():
        if before is not None and name in before.tasks[task].conditions:
            episodes += before.tasks[task].conditions[name].results
    todo = [key for key, episodes in found.items() if not episodes]
    if before is not None and not todo:
        return replace(finished(), created=before.created)
    jobs = [_Job(task=task, condition=name, seeds=seeds) for task, name in todo for seeds in _groups(config, split)]
    for job, episodes in _finish_all(jobs, checkpoint_path, config):
        of_condition = found[job.task, job.condition]
        of_condition += episodes
        if on_progress:
            on_progress(job.task, job.condition, sum(map(len, found.values())), len(found) * config.episodes)
        if on_condition and len(of_condition) == config.episodes:
            on_condition(finished())
    return finished()


def _groups(config: EvalConfig, split: str) -> Iterator[tuple[int | None, ...]]:
    seeds: list[int | None] = [split_seed(split, config.seed + i) for i in range(config.episodes)]
    seeds += [None] * (-len(seeds) % GROUP)
    for start in range(0, len(seeds), GROUP):
        yield tuple(seeds[start : start + GROUP])


def _finish_all(jobs: list[_Job], path: Path, config: EvalConfig) -> Iterator[tuple[_Job, list[EpisodeResult]]]:
    """Run all jobs. A seed whose worker hung, died or failed runs again alone, at the end, and its group without it;
    where no single seed is to blame, all of the group's do. One that fails alone, too, is reported as invalid.
    """
    waiting = deque(jobs)
    workers = min(config.workers or usable_cores(), len(jobs))
    finished, reason = 0, ""
    lost = {False: 0, True: 0}  # groups, and seeds that ran again
    for answer in run_jobs(waiting, _prepare, (path, config), workers=workers, timeout=config.timeout):
        if not isinstance(answer, Lost):
            finished += 1
            yield answer
            continue
        job, reason = answer.job, answer.reason
        lost[job.again] += 1
        if not finished and lost[job.again] == GIVE_UP:
            break
        guilty = [answer.item] if answer.item in job.seeds else [seed for seed in job.seeds if seed is not None]
        if job.again:
            yield job, [EpisodeResult(seed=seed, success=False, valid=False, failure=reason) for seed in guilty]
            continue
        for seed in guilty:  # in its own place: that decides the outcome, too
            waiting.append(replace(job, seeds=tuple(s if s == seed else None for s in job.seeds), again=True))
        rest = tuple(None if seed in guilty else seed for seed in job.seeds)
        if any(seed is not None for seed in rest):
            waiting.appendleft(replace(job, seeds=rest))
    if not finished:
        raise EvaluationError(f"no episode could be finished: {reason}; `vla doctor` looks for what is missing")


def _prepare(pulse: Pulse, setup: tuple[Path, EvalConfig]) -> Callable[[_Job], list[EpisodeResult]]:
    """In a worker: loads the policy once; what it returns keeps the environments of the task it works on."""
    # One thread a worker: the same arithmetic for any number of workers, and no fight for cores.
    torch.set_num_threads(1)
    path, config = setup
    checkpoint = load_checkpoint(path)
    runner, policy = PolicyRunner(checkpoint, GROUP, config.runner), checkpoint.policy
    kept: dict[tuple[str, bool], list[Env]] = {}

    def forget() -> None:
        for env in [env for envs in kept.values() for env in envs]:
            env.close()
        kept.clear()

    def handle(job: _Job) -> list[EpisodeResult]:
        spec, condition = find_task(job.task).varied(config.variation), CONTROLS[job.condition]
        labels = job.condition in (POLICY, "shuffled_instruction")
        key = (job.task, labels)
        try:
            if key not in kept:
                forget()
                kept[key] = []
                for _ in range(GROUP):
                    cameras, size = policy.config.cameras, policy.shapes.size
                    kept[key].append(make_task(spec, cameras=cameras, size=size, labels=labels, on_demand=True))
                    pulse.beat()
            outcome = OutcomeRecorder(runner if condition.actor == "policy" and labels else None)
            worlds = run(
                kept[key],
                job.seeds,
                make_actor(condition, runner, spec),
                [outcome],
                action_names=spec.action_names,
                scenario=condition.scenario,
                beat=pulse.beat,
            )
            return [outcome.results[world.row] for world in worlds]
        except Exception:
            forget()  # whatever state they are in
            raise

    return handle


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """What was found out about a task before its evaluation. conditions: those asked for, with what the task lacks for
    each, empty where it can be run. rate: decisions a second.
    """

    spec: TaskSpec
    conditions: dict[str, str]
    renderer: str
    rate: float


def _try_task(checkpoint: Checkpoint, task: str, config: EvalConfig, split: str) -> _Tried:
    """Make a task in this process, which fails early if it cannot be made or done, and measure the policy's rate while
    no worker needs the cores.
    """
    spec = find_task(task).varied(config.variation)
    env = make_task_for(checkpoint, spec)
    try:
        conditions = {name: CONTROLS[name].missing(env, spec) for name in choose_controls(config.controls)}
        renderer = str(offers(env, "gl_renderer") or "")
        rate = control_rate(checkpoint, env, split_seed(split, config.seed))
    finally:
        env.close()
    return _Tried(spec=spec, conditions=conditions, renderer=renderer, rate=rate)


def control_rate(checkpoint: Checkpoint, env: Env, seed: int) -> float:
    """Decisions a second that one robot would get: the inverse of the median time from its pictures to its action.

    A group's batch would say little about that: ten rows cost less than ten times one.
    """
    seen, _ = env.reset(seed=seed)
    runner = PolicyRunner(checkpoint, 1, RunnerConfig(execute=1))
    runner.reset([instruction_of(env, seen)])
    return 1 / statistics.median(seconds_per_call(lambda: runner.act([seen]), calls=TIMED))


def _unread(
    checkpoint: Checkpoint, done: dict[tuple[str, str], list[EpisodeResult]]
) -> dict[str, dict[str, list[str]]]:
    """By task, the words of its instructions that the policy does not know or that were cut off, if there are any."""
    texts: dict[str, list[str]] = {}
    for (task, _), episodes in done.items():
        texts.setdefault(task, []).extend(episode.instruction for episode in episodes if episode.instruction)
    found = {task: unread_words(checkpoint.tokenizer, instructions) for task, instructions in texts.items()}
    return {task: words for task, words in found.items() if words}


def _settings(config: EvalConfig, tried: dict[str, _Tried]) -> dict[str, Any]:
    specs = {task: found.spec for task, found in tried.items()}
    difficulty = {task: spec.difficulty for task, spec in specs.items() if spec.difficulty}
    not_offered = {t: {name: why for name, why in found.conditions.items() if why} for t, found in tried.items()}
    return {
        "episodes": config.episodes,
        "runner": asdict(config.runner),
        **({"variation": config.variation} if config.variation else {}),
        "control_hz": {task: spec.control_hz for task, spec in specs.items()},
        "horizon": {task: spec.horizon for task, spec in specs.items()},
        "criteria": {task: spec.success for task, spec in specs.items()},
        "tolerance_m": {task: spec.tolerance for task, spec in specs.items() if spec.tolerance is not None},
        "not_offered": {task: missing for task, missing in not_offered.items() if missing},
        **({"difficulty": difficulty} if difficulty else {}),
    }
