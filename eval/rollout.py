"""Episodes in closed loop: a group of seeds side by side, one network call for all.

Seeds are always grouped the same way and the batch is always full, whatever the number of workers, so that an
episode's outcome is a function of its seed and the checkpoint alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from configs.evaluation import RunnerConfig
from eval.controls import Condition
from eval.results import EpisodeResult
from eval.tubes import Tube, TubeScores, box_ious
from vla_policy.checkpoint import Checkpoint
from vla_policy.runner import PolicyRunner

if TYPE_CHECKING:
    from envs.tabletop.env import TabletopEnv

GROUP = 10  # episodes side by side
ERROR_DIGITS = 3  # of the tracking errors kept for plots: millimetres
NEAR = 0.10  # metres from the target; a failure that never got there is called so
TIMED, WARM_UP = 20, 3  # decisions

# Environment, its observation, the words the policy reads, and the action that is about to be executed.
OnStep = Callable[["TabletopEnv", dict[str, Any], str, np.ndarray], None]


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums come out differently for another number of threads: whoever wants the same episode again takes one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def control_rate(checkpoint: Checkpoint, env: TabletopEnv, seed: int) -> float:
    """Decisions a second that one robot would get: the inverse of the median time from its pictures to its action.

    A group's batch would say little about that: ten rows cost less than ten times one.
    """
    seen, _ = env.reset(seed=seed)
    controller = PolicyRunner(checkpoint, 1, RunnerConfig(execute=1))
    controller.reset([env.instruction])
    times = []
    with one_thread():
        for _ in range(WARM_UP + TIMED):
            started = time.perf_counter()
            controller.act([seen])
            times.append(time.perf_counter() - started)
    return 1 / statistics.median(times[WARM_UP:])


def action_index(checkpoint: Checkpoint, env: TabletopEnv) -> np.ndarray:
    """Which of the policy's actions the task uses.

    Raises:
        ValueError: the policy has no such action.
    """
    names = list(checkpoint.purpose.action_names)
    missing = [name for name in env.action_names if name not in names]
    if missing:
        raise ValueError(
            f"task {env.task!r} needs action {missing[0]!r}, the policy gives {', '.join(names)} "
            f"(trained on {', '.join(checkpoint.purpose.tasks)}); choose one of its tasks"
        )
    return np.array([names.index(name) for name in env.action_names])


def run_group(
    checkpoint: Checkpoint,
    controller: PolicyRunner,
    envs: Sequence[TabletopEnv],
    seeds: Sequence[int | None],
    condition: Condition,
    *,
    beat: Callable[..., None] | None = None,
    on_step: OnStep | None = None,
    referent: Any = None,
    instruction: str | None = None,
) -> list[EpisodeResult]:
    """Run one episode a seed, in lockstep; results come in the order of the seeds.

    Args:
        seeds: environment seeds, as many as environments; None leaves a row idle.
        beat: called before every piece of work, with its seed, or without for what all seeds share; see
            `envs.workers.Pulse`.
        on_step: called before every step of every episode, for videos.
        referent: forces what the instruction names; see `envs.tabletop.env.TabletopEnv.reset`.
        instruction: what the policy reads in place of the task's own words.
    """
    beat = beat or (lambda *_: None)
    rows = [
        None if seed is None else _Run(env, seed, row, condition, referent, instruction)
        for row, (env, seed) in enumerate(zip(envs, seeds, strict=True))
    ]
    runs = [run for run in rows if run is not None]
    index = action_index(checkpoint, envs[0])
    for run in runs:
        beat(run.seed)
        run.reset()
    beat()
    controller.reset([None if run is None else run.read for run in rows], frozen=condition.pictures == "frozen")
    first: np.ndarray | None = None
    while not all(run.done for run in runs):
        if condition.actor == "expert":
            actions = None
        elif condition.actor == "previous_action" and first is not None:
            actions = first
        else:
            beat()
            observations = [None if run is None or run.done else run.observation for run in rows]
            actions = controller.act(observations)[:, index]
            first = actions
        for run in runs:
            if run.done:
                continue
            beat(run.seed)
            action = run.expert_action() if actions is None else np.clip(actions[run.row], -1, 1).astype(np.float32)
            if on_step:
                on_step(run.env, run.observation, run.read, action)
            run.step(action, controller)
    results = []
    for run in runs:
        beat(run.seed)
        results.append(run.result())
    return results


class _Run:
    """One episode in progress; `row` is its place in the batch."""

    def __init__(
        self, env: TabletopEnv, seed: int, row: int, condition: Condition, referent: Any, instruction: str | None
    ) -> None:
        self.env, self.seed, self.row, self._condition = env, seed, row, condition
        self._referent, self._instruction = referent, instruction
        self._named: int | None = None
        self._tube: Tube | None = None
        self._true: list[tuple[bool, np.ndarray, bool]] = []  # of the same moments: part of the event, box, visible
        self.done = False

    def reset(self) -> None:
        options = dict(self._condition.options)
        if self._referent is not None:
            options["referent"] = self._referent
        seen, self._info = self.env.reset(seed=self.seed, options=options)
        self.read = self._instruction or self.env.instruction
        if self._condition.counterfactual:
            rng = np.random.default_rng((self.seed, 2))
            self.read, self._named = self.env.counterfactual(options.get("phrasing", "train"), rng)
        self.observation = self._altered(seen)

    def expert_action(self) -> np.ndarray:
        from envs.tabletop.plans import expert_action

        return expert_action(self.env.task, self._info["privileged"])

    def step(self, action: np.ndarray, controller: PolicyRunner) -> None:
        self._compare_boxes(controller)
        seen, _, terminated, truncated, self._info = self.env.step(action)
        self.done = terminated or truncated
        self.observation = self._altered(seen)

    def result(self) -> EpisodeResult:
        env, info = self.env, self._info
        target = env.layout.target
        success, stable = bool(info["is_success"]), bool(info["stable"])
        errors = env.judgement.errors[1 : env.step_count + 1, target]
        judged = env.judgement.errors[env.judged_steps(target), target]
        box_iou, tube = self._tube_scores()
        failure = ""
        if not stable:
            failure = "unstable simulation"
        elif not success:
            failure = self._diagnose(judged)
        return EpisodeResult(
            seed=self.seed,
            success=success,
            valid=stable,
            steps=env.step_count,
            instruction=self.read,
            task_instruction=env.instruction,
            target=env.target_name,
            mean_error_m=float(judged.mean()) if stable else None,
            errors_m=[round(float(e), ERROR_DIGITS) for e in errors] if stable else [],
            box_iou=box_iou,
            tube=tube,
            followed_instruction=None if self._named is None else stable and bool(env.judge(self._named)),
            failure=failure,
        )

    def _diagnose(self, judged: np.ndarray) -> str:
        """Why a stable episode failed, in a few words."""
        env = self.env
        if any(env.judge(i) for i in range(len(env.layout.objects))):
            return "wrong target"
        if fault := env.fault(env.layout.target):
            return fault
        close = judged < NEAR
        if not close.any():
            return "never near the target"
        return "too imprecise" if close.mean() > 0.8 else "lost the target"

    def _altered(self, seen: dict[str, Any]) -> dict[str, Any]:
        if self._condition.pictures == "blank":
            return {**seen, "pixels": {name: np.full_like(p, 128) for name, p in seen["pixels"].items()}}
        return seen

    def _compare_boxes(self, controller: PolicyRunner) -> None:
        if not controller.fresh or controller.chunk is None or controller.chunk.aux.boxes is None:
            return
        if self.env.labels != "boxes" or self._condition.actor != "policy":
            return
        secret = self._info["privileged"]
        camera = controller.policy.config.cameras[0]
        wanted = self.env.layout.target if self._named is None else self._named
        if camera in secret["boxes"]:
            if self._tube is None:
                self._tube = controller.new_tube()
            self._tube.add(self.env.step_count, controller.chunk.aux, self.row)
            begin, end = secret["events"][wanted]
            during = begin <= self.env.step_count < end
            self._true.append((during, secret["boxes"][camera][wanted].copy(), secret["visible"][camera][wanted]))

    def _tube_scores(self) -> tuple[float | None, TubeScores | None]:
        """Mean box IoU in visible frames, and the tube's scores; None of a policy that shows no boxes."""
        if self._tube is None:
            return None, None
        during, boxes, visible = (np.array(part) for part in zip(*self._true, strict=True))
        ious = box_ious(np.array(self._tube.boxes), boxes)[visible]
        scores = self._tube.scores(during, boxes, visible)
        return float(ious.mean()) if len(ious) else None, scores
