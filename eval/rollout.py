"""Episodes in closed loop: a group of seeds side by side, one network call for all.

Seeds are always grouped the same way and the batch is always full, whatever the number of workers, so that an
episode's outcome is a function of its seed and the checkpoint alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.controller import Controller
from eval.controls import Condition
from eval.results import EpisodeResult
from vla_policy.checkpoint import Checkpoint

if TYPE_CHECKING:
    from envs.tabletop import TabletopEnv

GROUP = 10  # episodes side by side
ERROR_DIGITS = 3  # of the tracking errors kept for plots: millimetres

OnStep = Callable[["TabletopEnv", Controller | None, np.ndarray], None]


@dataclass(frozen=True, kw_only=True)
class GroupOutcome:
    """Episode results in the order of the seeds, and the time spent deciding."""

    episodes: list[EpisodeResult]
    decisions: int
    seconds: float


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
    controller: Controller,
    envs: Sequence[TabletopEnv],
    seeds: Sequence[int | None],
    condition: Condition,
    *,
    on_seed: Callable[[int], None] | None = None,
    on_step: OnStep | None = None,
    referent: Any = None,
    instruction: str | None = None,
) -> GroupOutcome:
    """Run one episode a seed, in lockstep.

    Args:
        seeds: environment seeds, as many as environments; None leaves a row idle.
        on_seed: told which seed is about to be stepped, so that a watcher can name the one that hung.
        on_step: called after every step of every episode, for videos.
        referent: forces what the instruction names; see `envs.tabletop.TabletopEnv.reset`.
        instruction: what the policy reads in place of the task's own words.
    """
    runs = [
        None if seed is None else _Run(env, seed, condition, referent, instruction)
        for env, seed in zip(envs, seeds, strict=True)
    ]
    index = action_index(checkpoint, envs[0])
    for run in runs:
        if run is not None:
            if on_seed:
                on_seed(run.seed)
            run.reset()
    frozen = condition.pictures == "frozen"
    controller.reset([None if run is None else run.read for run in runs], frozen=frozen)
    first: np.ndarray | None = None
    seconds, before = 0.0, controller.decisions
    while any(run is not None and not run.done for run in runs):
        observations = [None if run is None or run.done else run.observation for run in runs]
        if condition.actor == "expert":
            actions = None
        elif condition.actor == "previous_action" and first is not None:
            actions = first
        else:
            started = time.perf_counter()
            actions = controller.act(observations)[:, index]
            seconds += time.perf_counter() - started
            first = actions
        for row, run in enumerate(runs):
            if run is None or run.done:
                continue
            if on_seed:
                on_seed(run.seed)
            action = run.expert_action() if actions is None else np.clip(actions[row], -1, 1).astype(np.float32)
            run.step(action, controller, row)
            if on_step:
                on_step(run.env, controller, action)
    return GroupOutcome(
        episodes=[run.result() for run in runs if run is not None],
        decisions=(controller.decisions - before) * sum(run is not None for run in runs),
        seconds=seconds,
    )


class _Run:
    """One episode in progress."""

    def __init__(
        self, env: TabletopEnv, seed: int, condition: Condition, referent: Any, instruction: str | None
    ) -> None:
        self.env, self.seed, self._condition = env, seed, condition
        self._referent, self._instruction = referent, instruction
        self._named: int | None = None
        self._ious: list[float] = []
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
        from envs.experts import expert_action

        return expert_action(self.env.task, self._info["privileged"])

    def step(self, action: np.ndarray, controller: Controller, row: int) -> None:
        self._compare_boxes(controller, row)
        seen, _, terminated, truncated, self._info = self.env.step(action)
        self.done = terminated or truncated
        self.observation = self._altered(seen)

    def result(self) -> EpisodeResult:
        env, info = self.env, self._info
        target = env.layout.target
        success, stable = bool(info["is_success"]), bool(info["stable"])
        errors = env.judgement.errors[1 : env.step_count + 1, target]
        judged = errors[len(errors) * 2 // 5 :]
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
            box_iou=float(np.mean(self._ious)) if self._ious else None,
            followed_instruction=None if self._named is None else stable and bool(env.judge(self._named)),
            failure=failure,
        )

    def _diagnose(self, judged: np.ndarray) -> str:
        """Why a stable episode failed, in a few words."""
        env = self.env
        if any(env.judge(i) for i in range(len(env.layout.objects))):
            return "wrong target"
        close = judged < 2 * FAR
        if not close.any():
            return "never near the target"
        return "too imprecise" if close.mean() > 0.8 else "lost the target"

    def _altered(self, seen: dict[str, Any]) -> dict[str, Any]:
        if self._condition.pictures == "blank":
            return {**seen, "pixels": {name: np.full_like(p, 128) for name, p in seen["pixels"].items()}}
        return seen

    def _compare_boxes(self, controller: Controller, row: int) -> None:
        if not controller.fresh or controller.chunk is None or controller.chunk.aux.boxes is None:
            return
        if self.env.labels != "boxes" or self._condition.actor != "policy":
            return
        secret = self._info["privileged"]
        camera = controller.policy.config.cameras[0]
        wanted = self.env.layout.target if self._named is None else self._named
        if camera in secret["boxes"] and secret["visible"][camera][wanted]:
            predicted = controller.chunk.aux.boxes[row, -1].cpu().numpy()
            self._ious.append(box_iou(predicted, secret["boxes"][camera][wanted]))


FAR = 0.05  # metres; the diagnosis of failures calls twice this "near"


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (cx, cy, w, h)."""
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    inner = float(np.prod(np.clip(high - low, 0, None)))
    return inner / max(float(np.prod(a[2:]) + np.prod(b[2:])) - inner, 1e-9)
