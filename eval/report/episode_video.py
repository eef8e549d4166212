"""Rollouts as videos: the episode with instruction, boxes, attention, action and verdict drawn in.

A video is a recorder of the one rollout loop: it shows what the policy decided, and asks it nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from configs.evaluation import RunnerConfig
from envs.rollout import World, run
from envs.task import find_task, offers
from eval.acting import GROUP, make_actor, make_task_for, one_thread
from eval.controls import CONTROLS
from eval.outcome import OutcomeRecorder, truth_at
from eval.report.attention import Heat, Places, attention_sheet, heat_maps, word_heats
from eval.report.overlay import STRIP, Frame, draw_overlay
from eval.report.timeline import Timeline, draw_timeline
from eval.results import POLICY, EpisodeResult
from eval.tubes import Tube, empty_tube
from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import Aux
from vla_policy.runner import PolicyRunner

PICTURE = 256  # pixels a side, drawn anew where the task can: what the policy sees is small
SCALE = 2  # of that picture
HOLD = 15  # frames that show the end and the verdict
STEP = 1e-3  # metres, to see where a movement goes in the picture


@dataclass(frozen=True, kw_only=True)
class Recording:
    """An episode and its frames, (H, W, 3) uint8 each, at `fps`."""

    episode: EpisodeResult
    frames: list[np.ndarray]
    fps: float


def record(
    checkpoint: Checkpoint,
    task: str,
    seed: int,
    *,
    condition: str = POLICY,
    instruction: str | None = None,
    runner: RunnerConfig | None = None,
    row: int = 0,
    variation: Mapping[str, Any] | None = None,
) -> Recording:
    """Roll out one episode and draw it.

    Args:
        seed: the environment's seed.
        instruction: what to say; the scene then holds what it names. None takes the task's own words.
        runner: how chunks are executed.
        row: the place in the batch that the evaluation gave this seed, so that the video shows the same episode.
        variation: how the task is tried, see `TaskSpec.varied`.

    Raises:
        ValueError: the instruction names nothing the task knows, or it cannot be tried so.
    """
    spec, shown, policy = find_task(task).varied(variation or {}), CONTROLS[condition], checkpoint.policy
    scenario = shown.scenario
    if instruction is not None:
        scenario = replace(scenario, options={**scenario.options, **spec.read(instruction)}, instruction=instruction)
    runs = PolicyRunner(checkpoint, GROUP, runner or RunnerConfig(execute=min(2, policy.config.head.chunk)))
    outcome = OutcomeRecorder(runs if shown.actor == "policy" else None)
    env = make_task_for(checkpoint, spec)
    if missing := shown.missing(env, spec):
        env.close()
        raise ValueError(f"task {task!r} cannot be run under {condition!r}: {missing}")
    video = VideoRecorder(checkpoint, runs if shown.actor == "policy" else None, spec.horizon)
    seeds: list[int | None] = [None] * GROUP
    seeds[row] = seed
    try:
        with one_thread():  # as the evaluation's workers
            [world] = run(
                [env] * GROUP,
                seeds,
                make_actor(shown, runs, spec),
                [outcome, video],
                action_names=spec.action_names,
                scenario=scenario,
            )
    finally:
        env.close()
    episode = outcome.results[world.row]
    verdict = "success" if episode.success else f"failure: {episode.failure}"
    return Recording(episode=episode, frames=video.frames(verdict), fps=spec.control_hz)


class VideoRecorder:
    """Draws the moments of one episode, as a recorder of `envs.rollout`.

    Args:
        checkpoint: the policy, whose first camera is shown.
        runner: it acting, None if somebody else acts.
        horizon: of the task, control steps.
    """

    def __init__(self, checkpoint: Checkpoint, runner: PolicyRunner | None, horizon: int) -> None:
        self._checkpoint, self._runner, self._horizon = checkpoint, runner, horizon
        self._camera = checkpoint.policy.config.cameras[0]

    def begin(self, world: World) -> None:
        self._shots: list[Shot] = []
        self._sheets: list[Frame] = []  # time and attention, below the scene
        self._tube = empty_tube(self._checkpoint.policy)

    def step(self, world: World, action: np.ndarray) -> None:
        aux = None
        if self._runner is not None and self._runner.chunk is not None:
            aux = row_of(self._runner.chunk.aux, world.row)
        picture = picture_of(world, self._camera, PICTURE)
        self._shots.append(shot_of(world, self._camera, picture, aux, action))
        if aux is None or aux.location is None:
            return
        sheet = attention_sheet(picture, heats_of(self._checkpoint, aux, world.instruction), SCALE * PICTURE)
        if aux.during is not None and aux.boxes is not None:
            if self._runner is not None and self._runner.fresh:
                self._tube.add(world.step, aux)
            timeline = _so_far(world, self._tube, self._horizon)
            sheet = np.concatenate([draw_timeline(timeline, world.step, SCALE * PICTURE), sheet])
        self._sheets.append(sheet)

    def end(self, world: World) -> None:
        self._end = shot_of(world, self._camera, picture_of(world, self._camera, PICTURE))

    def frames(self, verdict: str) -> list[Frame]:
        """The finished video, with the verdict at its end."""
        frames = [shot.draw() for shot in self._shots] + [self._end.draw(verdict)] * HOLD
        if self._sheets:
            sheets = self._sheets + [np.full_like(self._sheets[0], STRIP)] * HOLD  # no decision belongs to the end
            frames = [np.concatenate(both) for both in zip(frames, sheets, strict=True)]
        return frames


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A moment of an episode with all that is drawn over it; see `draw_overlay`."""

    picture: Frame
    instruction: str
    step: int
    true_box: list[float] | None = None
    predicted_box: list[float] | None = None
    location: Heat | None = None
    action: tuple[float, float] | None = None
    gripper: tuple[float, float] | None = None

    def draw(self, verdict: str | None = None, scale: int = SCALE) -> Frame:
        """The picture, `scale` times as large, with its marks."""
        marks = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "picture"}
        return draw_overlay(self.picture, **marks, verdict=verdict, scale=scale)


def shot_of(
    world: World, camera: str, picture: Frame, aux: Aux | None = None, action: np.ndarray | None = None
) -> Shot:
    """Everything about this moment: the state, what the policy believes of it, and the action it takes there."""
    known = world.info.get("privileged", {})
    true_box = predicted = location = None
    if camera in known.get("boxes", {}):
        meant = known["target"] if world.named is None else world.named
        _, box, visible = truth_at(known, camera, meant, world.step)
        true_box = box.tolist() if visible else None
    if aux is not None and aux.boxes is not None:
        seen = aux.visible is None or float(aux.visible[0, -1]) > 0.5
        predicted = aux.boxes[0, -1].tolist() if seen else None
    if aux is not None and aux.location is not None:
        location = aux.location[0, -1].float().cpu().numpy()
    gripper, arrow = _hand(world, camera, action)
    return Shot(
        picture=picture,
        instruction=world.instruction,
        step=world.step,
        true_box=true_box,
        predicted_box=predicted,
        location=location,
        action=arrow,
        gripper=gripper,
    )


def picture_of(world: World, camera: str, size: int) -> Frame:
    """What a camera sees now, (size, size, 3) uint8: drawn anew where the task can, else the policy's own, enlarged."""
    draw = offers(world.env, "picture")
    if draw is not None:
        return np.asarray(draw(camera, size), np.uint8)
    small = Image.fromarray(world.observation["pixels"][camera])
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.uint8)


def row_of(aux: Aux, row: int) -> Aux:
    """What belongs to one row of a batch, as a batch of one."""
    values = {f.name: getattr(aux, f.name) for f in fields(aux)}
    cut: dict[str, Any] = {n: None if v is None else v[row : row + 1] for n, v in values.items() if n != "attention"}
    return Aux(**cut, attention={name: weights[row : row + 1] for name, weights in aux.attention.items()})


def heats_of(checkpoint: Checkpoint, aux: Aux, read: str) -> dict[str, Heat]:
    """All that the policy attends to in the newest frame while it reads these words; see `eval.report.attention`."""
    return heat_maps(*_attention(checkpoint, aux, read))


def word_heats_of(checkpoint: Checkpoint, aux: Aux, read: str) -> dict[str, Heat]:
    """What each of these words attends to in the newest frame; see `eval.report.attention`."""
    return word_heats(*_attention(checkpoint, aux, read))


def _attention(checkpoint: Checkpoint, aux: Aux, read: str) -> tuple[dict[str, Tensor], Places, list[str]]:
    """The first row's maps, how places lie in them, and the words."""
    assert aux.location is not None
    policy, grid = checkpoint.policy, aux.location.shape[-2:]
    places = Places(grid=(grid[0], grid[1]), cameras=policy.shapes.cameras, frames=policy.encoder.grounded_frames)
    return {name: weights[0] for name, weights in aux.attention.items()}, places, checkpoint.tokenizer.pieces(read)


def write_video(recording: Recording, path: Path) -> Path:
    """Write a recording as MP4, or as animated WebP by the file's ending."""
    from eval.report.video import write_mp4, write_webp

    if path.suffix == ".webp":
        return write_webp(path, recording.frames, recording.fps)
    return write_mp4(path, recording.frames, recording.fps)


def _so_far(world: World, tube: Tube, horizon: int) -> Timeline:
    known = world.info.get("privileged", {})
    true = None
    if "events" in known:
        begin, end = known["events"][known["target"]]
        true = (int(begin), int(end) - 1)
    # A decision holds until the next one.
    latest = np.searchsorted(tube.steps, np.arange(world.step + 1), side="right") - 1
    during = [tube.during[i] for i in latest]
    return Timeline(steps=horizon, during=during, predicted=tube.interval, true=true, confidence=tube.confidence)


def _hand(
    world: World, camera: str, action: np.ndarray | None
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Where the hand is in the picture, and where the action moves it: right and down, 1 being full speed across the
    view. Known where the task says where its hand is, what that is in the picture, and that it moves by dx, dy and dz.
    """
    hand, place = world.info.get("privileged", {}).get("hand"), offers(world.env, "in_picture")
    at = None if hand is None or place is None else place(camera, hand)
    if at is None or action is None:
        return at, None
    commands = dict(zip(world.action_names, world.scale.to_unit(action).tolist(), strict=True))
    if "dx" not in commands or "dy" not in commands:
        return at, None
    moved = [place(camera, hand + STEP * axis) for axis in np.eye(3)]
    if any(end is None for end in moved):
        return at, None
    axes = (np.array(moved) - at).T  # what a step along x, y and z is in the picture, (2, 3)
    right, down = axes / np.linalg.norm(axes, axis=0).max() @ [commands.get(name, 0.0) for name in ("dx", "dy", "dz")]
    return at, (float(right), float(down))
