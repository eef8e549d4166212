"""Rollouts as pictures: the controller's episode with instruction, boxes, attention, action and verdict drawn in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.evaluation import RunnerConfig
from envs.tabletop.reading import read_instruction
from envs.task import make_task
from eval.controls import CONTROLS
from eval.report.attention import Heat, Places, attention_sheet, heat_maps
from eval.report.overlay import STRIP, Frame, draw_overlay
from eval.report.timeline import Timeline, draw_timeline
from eval.results import EpisodeResult
from eval.rollout import GROUP, one_thread, run_group
from eval.tubes import Tube
from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import Aux
from vla_policy.runner import PolicyRunner

if TYPE_CHECKING:
    from envs.tabletop.env import TabletopEnv

PICTURE = 256  # pixels a side, drawn anew: what the policy sees is small
SCALE = 2  # of that picture
HOLD = 15  # frames that show the end and the verdict

Scene = Callable[[str | None], np.ndarray]  # a moment of the film, drawn with or without a verdict


@dataclass(frozen=True, kw_only=True)
class Recording:
    """An episode and its frames, (H, W, 3) uint8 each, at `fps`."""

    episode: EpisodeResult
    frames: list[np.ndarray]
    fps: int


def record(
    checkpoint: Checkpoint,
    task: str,
    seed: int,
    *,
    condition: str = "policy",
    instruction: str | None = None,
    controller: RunnerConfig | None = None,
    row: int = 0,
) -> Recording:
    """Roll out one episode and draw it.

    Args:
        seed: the environment's seed.
        instruction: what to say; the scene then holds what it names. None takes the task's own words.
        row: the place in the batch that the evaluation gave this seed, so that the film shows the same episode.

    Raises:
        ValueError: the instruction names nothing the task knows.
    """
    referent = None if instruction is None else read_instruction(task, instruction)
    shown = CONTROLS[condition]
    policy = checkpoint.policy
    env = make_task(task, cameras=policy.config.cameras, size=policy.shapes.size)
    view = _View(env)
    # The episode's own controller looks only when a chunk is used up. This one looks at every step, so that box and
    # heat map belong to the picture that they are drawn on.
    onlooker = PolicyRunner(checkpoint, 1, RunnerConfig(execute=1))
    scenes: list[Scene] = []
    sheets: list[Frame] = []  # time and attention, below the scene
    tube = onlooker.new_tube()

    def keep(env: TabletopEnv, seen: dict[str, Any], read: str, action: np.ndarray) -> None:
        believed = None
        if shown.actor == "policy":
            if env.step_count == 0:
                onlooker.reset([read], frozen=shown.pictures == "frozen")
            onlooker.act([seen])
            assert onlooker.chunk is not None
            believed = onlooker.chunk.aux
        scenes.append(view.scene(read, believed, action))
        if believed is not None:
            sheet = attention_sheet(view.picture, heats_of(checkpoint, believed, read), SCALE * PICTURE)
            if believed.during is not None:
                tube.add(env.step_count, believed)
                sheet = np.concatenate([draw_timeline(_so_far(env, tube), env.step_count, SCALE * PICTURE), sheet])
            sheets.append(sheet)

    try:
        rows: list[int | None] = [None] * GROUP
        rows[row] = seed
        with one_thread():  # as the evaluation's workers
            [episode] = run_group(
                checkpoint,
                PolicyRunner(checkpoint, GROUP, controller or RunnerConfig(execute=min(2, policy.config.head.chunk))),
                [env] * GROUP,
                rows,
                shown,
                on_step=keep,
                referent=referent,
                instruction=instruction,
            )
        end = view.scene(episode.instruction)
        fps = int(env.metadata["render_fps"])
    finally:
        view.close()
        env.close()
    verdict = "success" if episode.success else f"failure: {episode.failure}"
    frames = [scene(None) for scene in scenes] + [end(verdict)] * HOLD
    if sheets:
        sheets += [np.full_like(sheets[0], STRIP)] * HOLD  # no decision belongs to the end
        frames = [np.concatenate(both) for both in zip(frames, sheets, strict=True)]
    return Recording(episode=episode, frames=frames, fps=fps)


def _so_far(env: TabletopEnv, tube: Tube) -> Timeline:
    begin, end = env.events[env.layout.target]
    return Timeline(
        steps=env.horizon,
        during=tube.during,
        predicted=tube.interval,
        true=(int(begin), int(end) - 1),
        confidence=tube.confidence,
    )


def heats_of(checkpoint: Checkpoint, believed: Aux, read: str) -> dict[str, Heat]:
    """All that the policy attends to in the newest frame while it reads these words; see `eval.report.attention`."""
    assert believed.location is not None
    policy, grid = checkpoint.policy, believed.location.shape[-2:]
    places = Places(grid=(grid[0], grid[1]), cameras=policy.shapes.cameras, frames=policy.encoder.grounded_frames)
    maps = {name: weights[0] for name, weights in believed.attention.items()}
    return heat_maps(maps, places, checkpoint.tokenizer.pieces(read))


def film(recording: Recording, path: Path) -> Path:
    """Write a recording as MP4, or as animated WebP by the file's ending."""
    from eval.report.video import write_mp4, write_webp

    if path.suffix == ".webp":
        return write_webp(path, recording.frames, recording.fps)
    return write_mp4(path, recording.frames, recording.fps)


class _View:
    """What the film shows: the camera that the policy's boxes and heat map belong to, drawn larger. `picture` is the
    last one drawn, without marks.
    """

    picture: np.ndarray

    def __init__(self, env: TabletopEnv) -> None:
        from envs.rendering import Renderer

        self._env, self._camera = env, env.cameras[0]
        self._renderer = Renderer(env._model, PICTURE)

    def close(self) -> None:
        self._renderer.close()

    def scene(self, text: str, believed: Aux | None = None, action: np.ndarray | None = None) -> Scene:
        """Everything about this moment: the state, what the policy believes of it, and the action it takes there."""
        env, secret = self._env, self._env.privileged()
        picture = self.picture = self._renderer.draw(env._data, self._camera)
        target, camera, step = secret["target"], self._camera, env.step_count
        true_box = secret["boxes"][camera][target].tolist() if secret["visible"][camera][target] else None
        predicted = location = None
        if believed is not None and believed.boxes is not None:
            seen = believed.visible is None or float(believed.visible[0, -1]) > 0.5
            predicted = believed.boxes[0, -1].tolist() if seen else None
        if believed is not None and believed.location is not None:
            location = believed.location[0, -1].float().cpu().numpy()
        arrow = None if action is None else self._arrow(action)
        gripper = self._place(secret["hand"])

        def draw(verdict: str | None) -> np.ndarray:
            return draw_overlay(
                picture,
                instruction=text,
                true_box=true_box,
                predicted_box=predicted,
                location=location,
                action=arrow,
                step=step,
                verdict=verdict,
                scale=SCALE,
                gripper=gripper,
            )

        return draw

    def _turned(self, vector: np.ndarray) -> np.ndarray:
        """A direction (3,) of the scene in the camera's axes: right, up, towards the camera."""
        turned: np.ndarray = self._env._data.cam(self._camera).xmat.reshape(3, 3).T @ vector
        return turned

    def _arrow(self, action: np.ndarray) -> tuple[float, float]:
        """Where the action moves the gripper in the picture: right and down, 1 being full speed across the view."""
        commands = dict(zip(self._env.action_names, action.tolist(), strict=True))
        right, up, _ = self._turned(np.array([commands.get(name, 0.0) for name in ("dx", "dy", "dz")]))
        return float(right), float(-up)

    def _place(self, point: np.ndarray) -> tuple[float, float] | None:
        """Where a point (3,) in metres lies, [0, 1] being the picture; None if it is behind the camera."""
        env = self._env
        right, up, back = self._turned(point - env._data.cam(self._camera).xpos)
        if back >= 0:
            return None
        half = -back * np.tan(np.deg2rad(env._model.cam(self._camera).fovy[0]) / 2)
        return float(0.5 + right / half / 2), float(0.5 - up / half / 2)
