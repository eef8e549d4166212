"""Every episode of a dataset as a video to ground: the tubes' scores, and files that published evaluators read.

K steps of an episode.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.evaluation import TubeRules
from configs.interface import check_same_robot
from eval.acting import one_thread
from eval.clips import decode_clips
from eval.ground import Decode, check_boxes, watch_live
from eval.results import write_whole
from eval.tubes import Tube, TubeScores, TubeSummary, summarise_tubes
from training.data.episodes import Dataset, open_dataset
from vla_policy.checkpoint import Checkpoint

SCORES, TRUTH, PREDICTIONS = "scores.json", "test_proc.json", "predictions.json"


@dataclass(frozen=True, kw_only=True)
class JudgedVideo:
    """A tube, the truth at the same steps, `(K,)`, `(K, 4)` and `(K,)`, and how well they agree."""

    name: str
    instruction: str
    tube: Tube
    during: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray
    scores: TubeScores


@dataclass(frozen=True, kw_only=True)
class JudgedData:
    """All videos of a dataset, pixels a side of their pictures, and the rules that they were judged by."""

    data: str
    size: int
    decode: Decode
    rules: TubeRules
    summary: TubeSummary | None
    videos: list[JudgedVideo] = field(default_factory=list)


def ground_dataset(
    checkpoint: Checkpoint,
    path: Path,
    decode: Decode,
    rules: TubeRules,
    *,
    last: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> JudgedData:
    """Ground every episode of a dataset by the words that its demonstration followed.

    Args:
        last: so many of the last episodes; 0 takes all.

    Raises:
        ValueError: the dataset cannot be read or has no boxes, or the policy is of another robot or size of pictures;
            one that only grounds may be of any robot, and read at a fraction of the dataset's rate.
    """
    check_boxes(checkpoint)
    data = open_dataset(path)
    if not data.labelled:
        raise ValueError(f"{path}: has no boxes to compare with; collect a task that labels them")
    policy, size = checkpoint.policy, data.arrays["pixels"].shape[2]
    every = _every(checkpoint, data, decode)
    missing = [name for name in policy.config.cameras if name not in data.interface.cameras]
    if missing:
        raise ValueError(f"{path}: camera {missing[0]!r} was not recorded, only {', '.join(data.interface.cameras)}")
    if size != policy.shapes.size:
        raise ValueError(f"{path}: pictures of {size} pixels a side, the policy reads {policy.shapes.size}")
    if last > data.episodes:
        raise ValueError(f"{path}: has {data.episodes} episodes, --episodes asks for {last}")
    chosen = range(data.episodes - last if last else 0, data.episodes)
    videos = []
    with one_thread():
        for done, episode in enumerate(chosen, start=1):
            videos.append(_judged(checkpoint, data, episode, decode, rules, every))
            if on_progress:
                on_progress(done, len(chosen))
    summary = summarise_tubes([video.scores for video in videos])
    return JudgedData(data=str(path), size=size, decode=decode, rules=rules, summary=summary, videos=videos)


def _every(checkpoint: Checkpoint, data: Dataset, decode: Decode) -> int:
    """Steps of the dataset for one of the policy's.

    Raises:
        ValueError: the policy moves another robot; or it only grounds, and its rate is no fraction of the dataset's.
    """
    if not checkpoint.policy.config.grounds_videos:
        check_same_robot(checkpoint.interface, data.interface, ("the policy", str(data.path)))
        return 1
    ours, theirs = checkpoint.interface.control_hz, data.interface.control_hz
    if ours is None or theirs is None or ours == theirs:
        return 1
    every = round(theirs / ours)
    if decode == "live" or abs(every * ours - theirs) > 1e-6 * theirs:
        raise ValueError(
            f"{data.path}: {theirs:g} pictures a second, the policy reads {ours:g}; expected a multiple of that, and "
            "--decode whole"
        )
    return every


def _judged(
    checkpoint: Checkpoint, data: Dataset, episode: int, decode: Decode, rules: TubeRules, every: int
) -> JudgedVideo:
    first, end = (int(x) for x in data.arrays["offsets"][episode : episode + 2])
    target = int(data.arrays["targets"][episode])
    instruction = data.instructions[episode][target]
    assert instruction is not None
    names, policy = data.interface.cameras, checkpoint.policy
    felt = data.arrays["agent_pos"]
    if policy.config.grounds_videos:  # whatever robot it was trained with, it does not look at it
        felt = np.broadcast_to(policy.normaliser.mean.cpu().numpy(), (len(felt), policy.shapes.proprioception))
    observations = [
        {
            "pixels": {name: data.arrays["pixels"][row, i] for i, name in enumerate(names)},
            "agent_pos": felt[row],
        }
        for row in range(first, end)
    ]
    if decode == "whole":
        tube = decode_clips(checkpoint, observations, instruction, every=every, rules=rules)
    else:
        tube = watch_live(checkpoint, observations, instruction, rules)
    camera = names.index(policy.config.cameras[0])
    begin, stop = data.arrays["events"][episode, target]
    steps = np.arange(end - first)
    during = (steps >= begin) & (steps < stop)
    boxes = np.array(data.arrays["boxes"][first:end, camera, target])
    visible = np.array(data.arrays["visible"][first:end, camera, target])
    return JudgedVideo(
        name=str(int(data.arrays["seeds"][episode])),
        instruction=instruction,
        tube=tube,
        during=during,
        boxes=boxes,
        visible=visible,
        scores=tube.scores(during, boxes, visible),
    )


def write_scores(out: Path, judged: JudgedData) -> list[str]:
    """Write the scores, the truth as HC-STVG's annotations and the predictions as its evaluator takes them; a line for
    each file and for the means. Videos without an event have no place in the files, and where the policy does not tell
    when, none has.
    """
    scores = {
        "data": judged.data,
        "decode": judged.decode,
        "rules": asdict(judged.rules),
        "summary": None if judged.summary is None else asdict(judged.summary),
        "videos": [{"video": v.name, "instruction": v.instruction, **asdict(v.scores)} for v in judged.videos],
    }
    told = [video for video in judged.videos if video.tube.tells_time and video.during.any()]
    paths = [
        write_whole(out / SCORES, json.dumps(scores, indent=1) + "\n"),
        write_whole(out / TRUTH, json.dumps([_annotation(v, judged.size) for v in told]) + "\n"),
        write_whole(out / PREDICTIONS, json.dumps(_predictions(told, judged.size)) + "\n"),
    ]
    missing = len(judged.videos) - len(told)
    why = "no event" if any(video.tube.tells_time for video in judged.videos) else "no predicted interval"
    left = [f"left out of {TRUTH} and {PREDICTIONS}: {missing} videos with {why}"] if missing else []
    return [_means(judged), *left, *map(str, paths)]


def _means(judged: JudgedData) -> str:
    summary = judged.summary
    if summary is None:
        return f"{len(judged.videos)} videos, of which none has a tube to compare with"
    numbers = {
        "m_tIoU": summary.mean_temporal_iou,
        "m_vIoU": summary.mean_tube_iou,
        "vIoU@0.3": summary.above_03,
        "vIoU@0.5": summary.above_05,
        "m_gt_vIoU": summary.mean_box_iou,
        "gt_vIoU@0.3": summary.gt_above_03,
        "gt_vIoU@0.5": summary.gt_above_05,
    }
    said = ", ".join(f"{name} {'–' if value is None else f'{value:.3f}'}" for name, value in numbers.items())
    return f"{summary.episodes} videos: {said}"


def _annotation(video: JudgedVideo, size: int) -> dict[str, Any]:
    """The truth in the form of HC-STVG's processed annotations: boxes (x, y, w, h) in pixels, of the event's frames."""
    at = np.flatnonzero(video.during)
    corners = _corners(video.boxes[at], size)
    return {
        "video_id": video.name,
        "video_path": video.name,
        "caption": video.instruction,
        "width": size,
        "height": size,
        "frame_count": len(video.during),
        "tube_start_frame": int(at[0]),
        "tube_end_frame": int(at[-1]) + 1,
        "trajectory": np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist(),
    }


def _predictions(videos: Sequence[JudgedVideo], size: int) -> dict[str, Any]:
    """Boxes (x0, y0, x1, y1) in pixels of every frame, and start and one past the end, by their evaluators' names. Of a
    video without a predicted interval, it is empty.
    """
    boxes: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for video in videos:
        interval = video.tube.interval
        intervals[video.name] = {"sted": [0, 0] if interval is None else [interval[0], interval[1] + 1]}
        for step, box in zip(video.tube.steps, _corners(np.array(video.tube.boxes), size).tolist(), strict=True):
            boxes[f"{video.name}_{step}"] = {"boxes": [box]}
    return {"predictions": boxes, "video_predictions": intervals}


def _corners(boxes: np.ndarray, size: int) -> np.ndarray:
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * size
