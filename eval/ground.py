"""`vla ground`: what a policy believes its words to mean, over a whole video: a box in every frame, and an interval.

Read "live", the policy watches the video as it would have watched it live: at each moment it knows the frames until
then, and reads all of its window anew. Read "whole", it reads every frame once, in clips as long as its window.

K moments, one a control step; V cameras, H W picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from configs.evaluation import RunnerConfig, TubeRules
from envs.actors import ExpertActor
from envs.rollout import Actor, Scenario, World, run
from envs.task import TaskSpec, find_task
from eval.acting import make_task_for, one_thread
from eval.clips import decode_clips
from eval.outcome import truth_at
from eval.report.episode_video import picture_of
from eval.report.overlay import Frame, draw_overlay
from eval.report.timeline import Timeline, draw_timeline
from eval.results import write_whole
from eval.tubes import RULES, Tube, TubeScores, empty_tube
from eval.videos import PICTURE, Fit, Video, fitted, observations_of
from vla_policy.checkpoint import Checkpoint
from vla_policy.runner import PolicyActor, PolicyRunner

SEEN = 256  # pixels a side of a simulated episode's pictures

OnProgress = Callable[[int, int], None]  # moments done, all
Decode = Literal["live", "whole"]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the simulator knows: event flags `(K,)`, boxes `(K, 4)` and visibility `(K,)` of what is named."""

    during: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Grounded:
    """What the policy points at, larger pictures of the same moments, what it was told, and the truth where the task
    labels it. `control_hz` moments are a second. Boxes are shares of the square pictures, of which `content` is the
    share of width and height that the video fills.
    """

    tube: Tube
    pictures: list[Frame]
    instruction: str
    control_hz: float
    truth: Truth | None = None
    fit: Fit = "square"
    content: tuple[float, float] = (1.0, 1.0)


def usual_decode(checkpoint: Checkpoint) -> Decode:
    """How a policy reads videos best: as it was trained to."""
    return "whole" if checkpoint.policy.config.grounds_videos else "live"


def usual_fit(checkpoint: Checkpoint) -> Fit:
    """How pictures that are not square reach a policy: whole where it can tell padding from content."""
    return "letterbox" if checkpoint.policy.config.grounds_videos else "square"


def ground_video(
    checkpoint: Checkpoint,
    video: Video,
    instruction: str,
    on_progress: OnProgress | None = None,
    *,
    decode: Decode = "live",
    rules: TubeRules = RULES,
) -> Grounded:
    """The tube of an instruction over a video, one frame per control step.

    Raises:
        ValueError: the instruction has no words, the policy needs what a video does not show, or it cannot tell padding
            from content when it reads live.
    """
    check_boxes(checkpoint)
    if decode == "live" and checkpoint.policy.config.grounds_videos and video.content != (1.0, 1.0):
        raise ValueError("--decode live does not tell padding from the picture; take --decode whole or --fit square")
    observations = observations_of(checkpoint, video.pictures)
    with one_thread():
        if decode == "whole":
            tube = decode_clips(
                checkpoint, observations, instruction, content=video.content, rules=rules, on_progress=on_progress
            )
        else:
            tube = watch_live(checkpoint, observations, instruction, rules, on_progress)
    return Grounded(
        tube=tube,
        pictures=video.pictures,
        instruction=instruction,
        control_hz=control_rate_of(checkpoint),
        fit=video.fit,
        content=video.content,
    )


def watch_live(
    checkpoint: Checkpoint,
    observations: Sequence[dict[str, Any]],
    instruction: str,
    rules: TubeRules = RULES,
    on_progress: OnProgress | None = None,
) -> Tube:
    """The tube as the policy sees it coming, step by step."""
    runner = PolicyRunner(checkpoint, 1, RunnerConfig(execute=1))
    runner.reset([instruction])
    tube = empty_tube(checkpoint.policy, rules)
    for step, seen in enumerate(observations):
        runner.act([seen])
        assert runner.chunk is not None
        tube.add(step, runner.chunk.aux)
        if on_progress:
            on_progress(step + 1, len(observations))
    return tube


def ground_episode(
    checkpoint: Checkpoint,
    task: str,
    seed: int,
    instruction: str | None = None,
    on_progress: OnProgress | None = None,
    *,
    decode: Decode = "live",
    rules: TubeRules = RULES,
) -> Grounded:
    """The tube of an episode in which the policy acts, deciding at every control step; or, read whole afterwards, of
    one in which the task's expert does.

    Args:
        seed: the environment's seed.
        instruction: what to say; the scene then holds what it names. None takes the task's own words.

    Raises:
        ValueError: the instruction names nothing the task knows, or the policy cannot do the task.
    """
    spec = find_task(task)
    check_boxes(checkpoint)
    options = {} if instruction is None else spec.read(instruction)
    live = PolicyRunner(checkpoint, 1, RunnerConfig(execute=1)) if decode == "live" else None
    actor: Actor = _expert(spec) if live is None else PolicyActor(live)
    recorder = _GroundingRecorder(checkpoint, live, spec.horizon, rules, on_progress)
    env = make_task_for(checkpoint, spec)
    try:
        with one_thread():
            [world] = run(
                [env],
                [seed],
                actor,
                [recorder],
                action_names=spec.action_names,
                scenario=Scenario(options=options, instruction=instruction),
            )
            if live is None:
                recorder.tube = decode_clips(checkpoint, recorder.seen, world.instruction, rules=rules)
    finally:
        env.close()
    return Grounded(
        tube=recorder.tube,
        pictures=recorder.pictures,
        instruction=world.instruction,
        control_hz=spec.control_hz,
        truth=recorder.truth,
    )


def _expert(spec: TaskSpec) -> ExpertActor:
    """Who acts where the policy reads the video afterwards.

    Raises:
        ValueError: the task has none.
    """
    if not spec.expert:
        raise ValueError(f"task {spec.name!r} has no expert to act in what is read afterwards; take --decode live")
    return ExpertActor(spec.make_expert())


class _GroundingRecorder:
    """Keeps what a policy that acts believes at every step, or what it is going to read; `truth` is None where the task
    labels nothing.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        runner: PolicyRunner | None,
        horizon: int,
        rules: TubeRules,
        on_progress: OnProgress | None,
    ) -> None:
        self._runner, self._horizon, self._on_progress = runner, horizon, on_progress
        self._cameras = checkpoint.policy.config.cameras
        self._camera = self._cameras[0]
        self.tube = empty_tube(checkpoint.policy, rules)
        self.seen: list[dict[str, Any]] = []
        self.pictures: list[Frame] = []
        self._true: list[tuple[bool, np.ndarray, bool]] = []

    def begin(self, world: World) -> None:
        pass

    def step(self, world: World, action: np.ndarray) -> None:
        if self._runner is None:
            pixels = {name: world.observation["pixels"][name].copy() for name in self._cameras}
            self.seen.append({"pixels": pixels, "agent_pos": world.observation["agent_pos"].copy()})
        else:
            assert self._runner.chunk is not None
            self.tube.add(world.step, self._runner.chunk.aux, world.row)
        self.pictures.append(picture_of(world, self._camera, SEEN))
        known = world.info.get("privileged", {})
        if self._camera in known.get("boxes", {}):
            self._true.append(truth_at(known, self._camera, known["target"], world.step))
        if self._on_progress:
            self._on_progress(world.step + 1, self._horizon)

    def end(self, world: World) -> None:
        pass

    @property
    def truth(self) -> Truth | None:
        if not self._true:
            return None
        during, boxes, visible = (np.array(part) for part in zip(*self._true, strict=True))
        return Truth(during=during, boxes=boxes, visible=visible)


def check_boxes(checkpoint: Checkpoint) -> None:
    if not checkpoint.purpose.boxes:
        raise ValueError(
            "this policy never learned where to look: its demonstrations had no boxes, or it had no weight"
        )


def control_rate_of(checkpoint: Checkpoint) -> float:
    """Control steps per second that the policy was trained at; of one that does not say, those of its first task."""
    return checkpoint.purpose.control_hz or find_task(checkpoint.purpose.tasks[0]).control_hz


def write_grounding(out: Path, grounded: Grounded) -> tuple[Path, Path]:
    """Write `tube.mp4` and `tube.json` into `out` and return their paths."""
    from eval.report.video import write_mp4

    tube, truth, rate = grounded.tube, grounded.truth, grounded.control_hz
    scores = None if truth is None else tube.scores(truth.during, truth.boxes, truth.visible)
    video = write_mp4(out / "tube.mp4", draw_tube(tube, grounded.pictures, grounded.instruction, truth), rate)
    described = json.dumps(describe_tube(grounded, scores), indent=1)
    return video, write_whole(out / "tube.json", described + "\n")


def draw_tube(tube: Tube, pictures: Sequence[Frame], instruction: str, truth: Truth | None = None) -> Iterator[Frame]:
    """The pictures with box, interval and certainty. Boxes outside the predicted interval are left out, and those of
    moments in which the policy takes the target for hidden.
    """
    inside = tube.flags()
    if tube.visible:
        inside &= np.array(tube.visible) > 0.5
    timeline = Timeline(
        steps=len(tube.steps),
        during=tube.during,
        predicted=tube.interval if tube.tells_time else None,
        true=_interval(truth.during) if tube.tells_time and truth is not None else None,
        confidence=tube.confidence,
    )
    for step, picture in enumerate(pictures):
        shown = truth is not None and truth.during[step] and truth.visible[step]
        scene = draw_overlay(
            fitted(picture, PICTURE),
            instruction=instruction,
            true_box=truth.boxes[step].tolist() if truth is not None and shown else None,
            predicted_box=tube.boxes[step] if inside[step] else None,
            step=step,
            scale=1,
        )
        yield np.concatenate([scene, draw_timeline(timeline, step, scene.shape[1])])


def describe_tube(grounded: Grounded, scores: TubeScores | None = None) -> dict[str, Any]:
    """The tube as plain data: seconds, boxes (cx, cy, w, h) in [0, 1], the probabilities that the policy tells, and the
    scores if known. No interval of a policy that does not tell the time. Boxes of letterboxed pictures are shares of
    the pictures without their padding.
    """
    tube, control_hz, instruction = grounded.tube, grounded.control_hz, grounded.instruction
    inside, interval = tube.flags(), tube.interval if tube.tells_time else None
    unknown: Sequence[float | None] = [None] * len(tube.steps)
    boxes = (np.array(tube.boxes).reshape(-1, 4) / np.tile(grounded.content, 2)).tolist()
    moments = zip(tube.steps, boxes, tube.during or unknown, tube.visible or unknown, inside, strict=True)
    square = "'s middle square" if grounded.fit == "square" else ""
    return {
        "instruction": instruction,
        "control_hz": control_hz,
        "box": f"cx, cy, w, h as shares of the picture{square}",
        "interval_s": None if interval is None else [interval[0] / control_hz, (interval[1] + 1) / control_hz],
        "confidence": tube.confidence,
        "temporal_iou": None if scores is None else scores.temporal_iou,
        "tube_iou": None if scores is None else scores.tube_iou,
        "moments": [
            {
                "time_s": step / control_hz,
                "box": [round(x, 4) for x in box],
                "event": None if during is None else round(during, 4),
                "visible": None if visible is None else round(visible, 4),
                "in_tube": bool(part),
            }
            for step, box, during, visible, part in moments
        ],
    }


def _interval(flags: np.ndarray) -> tuple[int, int] | None:
    at = np.flatnonzero(flags)
    return (int(at[0]), int(at[-1])) if len(at) else None
