"""Rollouts as pictures: the controller's episode with instruction, boxes, attention, action and verdict drawn in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from envs.instructions import Referent, read_object
from envs.registration import make_task
from eval.controller import Controller, ControllerConfig
from eval.controls import CONTROLS
from eval.overlay import draw_overlay
from eval.results import EpisodeResult
from eval.rollout import GROUP, run_group
from vla_policy.checkpoint import Checkpoint

if TYPE_CHECKING:
    from envs.tabletop import TabletopEnv

SCALE = 2  # of the environment's rendered picture
HOLD = 15  # frames that show the verdict at the end


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
    controller: ControllerConfig | None = None,
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
    shapes = checkpoint.policy.shapes
    cameras = checkpoint.policy.config.cameras
    env = make_task(task, cameras=cameras, size=shapes.size, render_mode="rgb_array")
    scenes: list[Callable[[str | None], np.ndarray]] = []

    def keep(env: TabletopEnv, controller: Controller | None, action: np.ndarray) -> None:
        scenes.append(_scene(env, controller, action, row))

    try:
        rows: list[int | None] = [None] * GROUP
        rows[row] = seed
        outcome = run_group(
            checkpoint,
            Controller(checkpoint, GROUP, controller or ControllerConfig()),
            [env] * GROUP,
            rows,
            CONTROLS[condition],
            on_step=keep,
            referent=referent,
            instruction=instruction,
        )
        fps = int(env.metadata["render_fps"])
    finally:
        env.close()
    episode = outcome.episodes[0]
    verdict = "success" if episode.success else f"failure: {episode.failure}"
    frames = [scene(None) for scene in scenes]
    return Recording(episode=episode, frames=frames + [scenes[-1](verdict)] * HOLD, fps=fps)


def read_instruction(task: str, text: str) -> Referent:
    """What a user's words mean in this task.

    Raises:
        ValueError: they name nothing the task knows.
    """
    from envs.tasks.track_motion import read_motion

    return read_motion(text) if task == "track_motion" else read_object(text)


def guess_task(text: str, tasks: tuple[str, ...]) -> str:
    """The task that fits a user's words best, out of those the policy knows.

    Words of motion mean `track_motion`; otherwise verbs of staying mean `track` and the rest `reach`.
    """
    from envs.tasks.track_motion import read_motion

    try:
        read_object(text)
    except ValueError:
        try:
            read_motion(text)
        except ValueError:
            return tasks[0]
        return "track_motion" if "track_motion" in tasks else tasks[0]
    staying = ("track", "follow", "stay", "keep", "chase", "hover", "after", "with")
    preferred = "track" if any(word in text.lower() for word in staying) else "reach"
    return preferred if preferred in tasks else next((t for t in tasks if t != "track_motion"), tasks[0])


def film(recording: Recording, path: Path) -> Path:
    """Write a recording as MP4, or as animated WebP by the file's ending."""
    from eval.video import write_mp4, write_webp

    if path.suffix == ".webp":
        return write_webp(path, recording.frames, recording.fps)
    return write_mp4(path, recording.frames, recording.fps)


def _scene(
    env: TabletopEnv, controller: Controller | None, action: np.ndarray, row: int
) -> Callable[[str | None], np.ndarray]:
    """Everything about this moment, ready to be drawn with or without a verdict."""
    picture, step = env.render(), env.step_count
    secret = env.privileged()
    target, camera = secret["target"], env.cameras[0]
    true_box = secret["boxes"][camera][target].tolist() if secret["visible"][camera][target] else None
    predicted = attention = None
    aux = controller.chunk.aux if controller is not None and controller.chunk is not None else None
    if aux is not None and aux.boxes is not None:
        predicted = aux.boxes[row, -1].tolist()
    if aux is not None and aux.location is not None:
        attention = aux.location[row, -1].float().cpu().numpy()
    # The robot's x axis points at the front camera, so it is down in the picture, and y is to the right.
    arrow = (float(action[1]), float(action[0]))
    gripper = env.project(secret["hand"])
    text = env.instruction if controller is None else controller.read[row]

    def draw(verdict: str | None) -> np.ndarray:
        return draw_overlay(
            picture,
            instruction=text or env.instruction,
            true_box=true_box,
            predicted_box=predicted,
            attention=attention,
            action=arrow,
            step=step,
            verdict=verdict,
            scale=SCALE,
            gripper=gripper,
        )

    return draw
