"""`vla ground`: what a policy believes its words to mean, over a whole video: a box in every frame, and an interval.

The policy watches the video as it would have watched it live: at each moment it knows the frames until then.

K moments, one a control step; V cameras, H W picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from configs.evaluation import RunnerConfig
from envs.tabletop.reading import read_instruction
from envs.tabletop.scene import CONTROL_HZ
from envs.task import make_task
from eval.controls import CONTROLS
from eval.report.overlay import Frame, draw_overlay
from eval.report.timeline import Timeline, draw_timeline
from eval.results import write_whole
from eval.rollout import one_thread, run_group
from eval.tubes import Tube, TubeScores
from vla_policy.checkpoint import Checkpoint
from vla_policy.runner import PolicyRunner

if TYPE_CHECKING:
    from envs.tabletop.env import TabletopEnv

SEEN = 256  # pixels a side of a simulated episode's pictures
PICTURE = 512  # pixels a side of the film that is written

OnProgress = Callable[[int, int], None]  # moments done, all


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the simulator knows: event flags `(K,)`, boxes `(K, 4)` and visibility `(K,)` of what is named."""

    during: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray


def ground(
    checkpoint: Checkpoint,
    observations: Sequence[dict[str, Any]],
    instruction: str,
    on_progress: OnProgress | None = None,
) -> Tube:
    """The tube of an instruction over observations as the environments give them, one a control step.

    Raises:
        ValueError: the instruction has no words, or an observation lacks what the policy sees.
    """
    watcher = PolicyRunner(checkpoint, 1, RunnerConfig(execute=1))
    watcher.reset([instruction])
    tube = watcher.new_tube()
    with one_thread():
        for step, seen in enumerate(observations):
            watcher.act([seen])
            assert watcher.chunk is not None
            tube.add(step, watcher.chunk.aux)
            if on_progress:
                on_progress(step + 1, len(observations))
    return tube


@dataclass(frozen=True, kw_only=True)
class Watched:
    """An episode that the policy acted in: what it saw and was told, larger pictures of the same moments, the truth."""

    observations: list[dict[str, Any]]
    pictures: list[Frame]
    instruction: str
    truth: Truth


def watch(checkpoint: Checkpoint, task: str, seed: int, instruction: str | None = None) -> Watched:
    """Roll out one episode and keep what grounding needs.

    Args:
        seed: the environment's seed.
        instruction: what to say; the scene then holds what it names. None takes the task's own words.

    Raises:
        ValueError: the instruction names nothing the task knows, or the policy cannot do the task.
    """
    from envs.rendering import Renderer

    policy = checkpoint.policy
    referent = None if instruction is None else read_instruction(task, instruction)
    env = make_task(task, cameras=policy.config.cameras, size=policy.shapes.size)
    renderer, camera = Renderer(env._model, SEEN), policy.config.cameras[0]
    observations: list[dict[str, Any]] = []
    pictures: list[Frame] = []
    true: list[tuple[bool, np.ndarray, bool]] = []
    words = ""

    def keep(env: TabletopEnv, seen: dict[str, Any], read: str, _action: np.ndarray) -> None:
        nonlocal words
        words = read
        observations.append(seen)
        pictures.append(renderer.draw(env._data, camera))
        secret, target = env.privileged(), env.layout.target
        begin, end = secret["events"][target]
        during = bool(begin <= env.step_count < end)
        true.append((during, secret["boxes"][camera][target].copy(), bool(secret["visible"][camera][target])))

    try:
        with one_thread():
            run_group(
                checkpoint,
                PolicyRunner(checkpoint, 1, RunnerConfig(execute=min(2, policy.config.head.chunk))),
                [env],
                [seed],
                CONTROLS["policy"],
                on_step=keep,
                referent=referent,
                instruction=instruction,
            )
    finally:
        renderer.close()
        env.close()
    during, boxes, visible = (np.array(part) for part in zip(*true, strict=True))
    truth = Truth(during=during, boxes=boxes, visible=visible)
    return Watched(observations=observations, pictures=pictures, instruction=words, truth=truth)


def observations_of(checkpoint: Checkpoint, pictures: Sequence[Frame]) -> list[dict[str, Any]]:
    """Pictures of one camera, of any size, as observations. What the arm's joints do is unknown: the mean is taken.

    Raises:
        ValueError: the policy sees several cameras, which one video cannot show.
    """
    policy = checkpoint.policy
    cameras = policy.config.cameras
    if len(cameras) > 1:
        raise ValueError(
            f"the policy sees {len(cameras)} cameras ({', '.join(cameras)}), a video shows one; use --task"
        )
    size = policy.shapes.size
    agent_pos = policy.normaliser.mean.cpu().numpy()
    return [{"pixels": {cameras[0]: _fitted(picture, size)}, "agent_pos": agent_pos} for picture in pictures]


def _fitted(picture: Frame, size: int) -> Frame:
    """The middle square of a picture, at the policy's resolution."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(square.resize((size, size), Image.Resampling.BOX), dtype=np.uint8)


def read_video(path: Path) -> list[Frame]:
    """The middle squares of a video at the control rate, `(PICTURE, PICTURE, 3)` uint8 each.

    Raises:
        ValueError: there is no such file, it is no video, or it has no frames.
    """
    import imageio.v3 as iio

    if not path.is_file():
        raise ValueError(f"--video {path}: no such file; give a video such as MP4")
    try:
        fps = float(iio.immeta(path, plugin="pyav")["fps"])
        pictures: list[Frame] = []
        # Kept small at once: a minute of a large film would not fit into memory.
        for number, frame in enumerate(iio.imiter(path, plugin="pyav")):
            while len(pictures) / CONTROL_HZ < (number + 1) / fps - 1e-9:
                pictures.append(_fitted(np.asarray(frame, dtype=np.uint8), PICTURE))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the decoder's own kinds
        raise ValueError(f"--video {path}: not a readable video ({' '.join(str(error).split())})") from None
    if not pictures:
        raise ValueError(f"--video {path}: got no frames, expected one or more")
    return pictures


def write_grounding(
    out: Path, tube: Tube, pictures: Sequence[Frame], instruction: str, truth: Truth | None = None
) -> tuple[Path, Path]:
    """Write `tube.mp4` and `tube.json` into `out` and return their paths.

    Args:
        pictures: what is drawn on, one a moment; the boxes belong to their middle square.
    """
    from eval.report.video import write_mp4

    scores = None if truth is None else tube.scores(truth.during, truth.boxes, truth.visible)
    film = write_mp4(out / "tube.mp4", draw_tube(tube, pictures, instruction, truth), CONTROL_HZ)
    described = json.dumps(describe_tube(tube, instruction, scores), indent=1)
    return film, write_whole(out / "tube.json", described + "\n")


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
        predicted=tube.interval if tube.during else None,
        true=_interval(truth.during) if tube.during and truth is not None else None,
        confidence=tube.confidence,
    )
    for step, picture in enumerate(pictures):
        shown = truth is not None and truth.during[step] and truth.visible[step]
        scene = draw_overlay(
            _fitted(picture, PICTURE),
            instruction=instruction,
            true_box=truth.boxes[step].tolist() if truth is not None and shown else None,
            predicted_box=tube.boxes[step] if inside[step] else None,
            step=step,
            scale=1,
        )
        yield np.concatenate([scene, draw_timeline(timeline, step, scene.shape[1])])


def describe_tube(tube: Tube, instruction: str, scores: TubeScores | None = None) -> dict[str, Any]:
    """The tube as plain data: seconds, boxes (cx, cy, w, h) in [0, 1], the probabilities that the policy tells, and the
    scores if known. No interval of a policy that does not tell the time.
    """
    inside, interval = tube.flags(), tube.interval if tube.during else None
    unknown: Sequence[float | None] = [None] * len(tube.steps)
    moments = zip(tube.steps, tube.boxes, tube.during or unknown, tube.visible or unknown, inside, strict=True)
    return {
        "instruction": instruction,
        "control_hz": CONTROL_HZ,
        "box": "cx, cy, w, h as shares of the picture's middle square",
        "interval_s": None if interval is None else [interval[0] / CONTROL_HZ, (interval[1] + 1) / CONTROL_HZ],
        "confidence": tube.confidence,
        "temporal_iou": None if scores is None else scores.temporal_iou,
        "tube_iou": None if scores is None else scores.tube_iou,
        "moments": [
            {
                "time_s": step / CONTROL_HZ,
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
