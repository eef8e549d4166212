"""Records how episodes end: success, errors, box overlap, and why they failed.

K moments, T frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.rollout import World
from envs.task import offers
from eval.results import EpisodeResult
from eval.tubes import Tube, TubeScores, box_ious, empty_tube
from vla_policy.runner import PolicyRunner

ERROR_DIGITS = 3  # of the tracking errors kept for plots: millimetres


class OutcomeRecorder:
    """A recorder of `envs.rollout`. `results` holds what became of every episode, by its row.

    Args:
        runner: the policy that acts, whose boxes are compared with the true ones wherever the task labels them; None
            if somebody else acts.
    """

    def __init__(self, runner: PolicyRunner | None = None) -> None:
        self._runner = runner
        self._tubes: dict[int, Tube] = {}
        self._truth: dict[int, list[tuple[bool, np.ndarray, bool]]] = {}
        self.results: dict[int, EpisodeResult] = {}

    def begin(self, world: World) -> None:
        self._tubes.pop(world.row, None)
        self._truth[world.row] = []

    def step(self, world: World, action: np.ndarray) -> None:
        runner, known = self._runner, world.info.get("privileged", {})
        if runner is None or not runner.fresh or runner.chunk is None or runner.chunk.aux.boxes is None:
            return
        camera = runner.policy.config.cameras[0]
        if camera not in known.get("boxes", {}):
            return
        wanted = known["target"] if world.named is None else world.named
        if world.row not in self._tubes:
            self._tubes[world.row] = empty_tube(runner.policy)
        self._tubes[world.row].add(world.step, runner.chunk.aux, world.row)
        self._truth[world.row].append(truth_at(known, camera, wanted, world.step))

    def end(self, world: World) -> None:
        env, info = world.env, world.info
        success, stable = bool(info["is_success"]), bool(info.get("stable", True))
        errors, judged = _numbers(offers(env, "tracking_errors")), _numbers(offers(env, "judged_errors"))
        box_iou, tube = self._scores(world.row)
        failure = ""
        if not stable:
            failure = "unstable simulation"
        elif not success:
            diagnosis = offers(env, "diagnosis")
            failure = (diagnosis() if diagnosis else "") or "not done in time"
        judge = offers(env, "judge")
        followed = None if world.named is None or judge is None else stable and bool(judge(world.named))
        self.results[world.row] = EpisodeResult(
            seed=world.seed,
            success=success and stable,
            valid=stable,
            steps=world.step,
            instruction=world.instruction,
            task_instruction=world.task_instruction,
            target=str(offers(env, "target_name") or ""),
            mean_error_m=float(judged.mean()) if stable and len(judged) else None,
            errors_m=[round(float(e), ERROR_DIGITS) for e in errors] if stable else [],
            box_iou=box_iou,
            tube=tube,
            followed_instruction=followed,
            failure=failure,
        )

    def _scores(self, row: int) -> tuple[float | None, TubeScores | None]:
        """Mean box IoU in visible frames, and the tube's scores; None of a policy that shows no boxes."""
        if row not in self._tubes:
            return None, None
        tube = self._tubes[row]
        during, boxes, visible = (np.array(part) for part in zip(*self._truth[row], strict=True))
        ious = box_ious(np.array(tube.boxes), boxes)[visible]
        return float(ious.mean()) if len(ious) else None, tube.scores(during, boxes, visible)


def truth_at(known: dict[str, Any], camera: str, thing: int, step: int) -> tuple[bool, np.ndarray, bool]:
    """Of `info["privileged"]`: whether the event of a thing's words holds at a step, its box (4,), and whether it is
    visible. Without events, the whole episode is one.
    """
    begin, end = known["events"][thing] if "events" in known else (0, step + 1)
    return bool(begin <= step < end), known["boxes"][camera][thing].copy(), bool(known["visible"][camera][thing])


def _numbers(measure: Any) -> np.ndarray:
    return np.zeros(0) if measure is None else np.asarray(measure(), float)
