"""Grounding a video: what the policy says live, moment by moment, as a video and as plain data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from configs.evaluation import RunnerConfig
from configs.seeds import split_seed
from envs.task import find_task, make_task, use_task_modules
from eval import ground as module
from eval.ground import (
    control_rate_of,
    draw_tube,
    ground_episode,
    ground_video,
    write_grounding,
)
from eval.report.video import write_mp4
from eval.tubes import Tube
from eval.videos import Video, observations_of, read_video
from vla_policy.checkpoint import Checkpoint, load_checkpoint
from vla_policy.contract import ActionChunk, Observation
from vla_policy.runner import PolicyRunner

SEED = split_seed("test", 4)


@pytest.fixture(scope="module")
def timed(timed_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(timed_checkpoint)


@pytest.fixture
def asked(timed: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> list[Observation]:
    """What the policy is asked."""
    found: list[Observation] = []
    act = timed.policy.act

    def spy(observation: Observation) -> ActionChunk:
        found.append(observation)
        return act(observation)

    monkeypatch.setattr(timed.policy, "act", spy)
    return found


def test_an_episode_is_grounded_as_it_would_be_live(
    timed: Checkpoint, asked: list[Observation], tmp_path: Path
) -> None:
    found = ground_episode(timed, "track", SEED)
    steps, tube = len(found.pictures), found.tube
    assert steps == find_task("track").horizon
    assert len(asked) == steps  # one inference a moment, which acts and is drawn
    assert found.control_hz == 20
    assert found.truth is not None
    assert len(found.truth.during) == steps
    assert found.truth.during.all()
    assert tube.steps == list(range(steps))

    env = make_task("track", cameras=("front",), size=timed.policy.shapes.size)
    seen, info = env.reset(seed=SEED)
    assert seen["instruction"] == found.instruction
    live = PolicyRunner(timed, 1, RunnerConfig(execute=1))
    live.reset([found.instruction])
    for step in range(20):
        np.testing.assert_allclose(found.truth.boxes[step], info["privileged"]["boxes"]["front"][target_of(info)])
        assert found.truth.visible[step] == info["privileged"]["visible"]["front"][target_of(info)]
        action = live.act([seen])[0]
        assert live.chunk is not None
        aux = live.chunk.aux
        assert aux.boxes is not None
        assert aux.during is not None
        assert aux.visible is not None
        torch.testing.assert_close(torch.tensor(tube.boxes[step]), aux.boxes[0, -1], atol=1e-5, rtol=0)
        assert tube.during[step] == pytest.approx(aux.during[0, -1].item(), abs=1e-5)
        assert tube.visible[step] == pytest.approx(aux.visible[0, -1].item(), abs=1e-5)
        seen, _, _, _, info = env.step(np.clip(action, -1, 1))
    env.close()

    video, described = write_grounding(tmp_path, replace(found, pictures=found.pictures[:3], truth=None, tube=tube))
    assert video.stat().st_size > 1000
    told = json.loads(described.read_text())
    assert (told["tube_iou"], told["temporal_iou"]) == (None, None)
    _, described = write_grounding(tmp_path, replace(found, pictures=found.pictures[:3]))
    told = json.loads(described.read_text())
    assert told["instruction"] == found.instruction
    assert told["control_hz"] == 20
    assert len(told["moments"]) == steps
    assert told["moments"][3]["time_s"] == pytest.approx(3 / 20)
    assert told["moments"][3]["box"] == pytest.approx(tube.boxes[3], abs=1e-4)
    assert told["moments"][3]["visible"] == pytest.approx(tube.visible[3], abs=1e-4)
    assert told["tube_iou"] == tube.scores(found.truth.during, found.truth.boxes, found.truth.visible).tube_iou


def target_of(info: dict[str, Any]) -> int:
    target: int = info["privileged"]["target"]
    return target


def test_a_box_of_what_is_taken_for_hidden_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def note(picture: np.ndarray, **marks: object) -> np.ndarray:
        drawn.append(marks["predicted_box"])
        return picture

    monkeypatch.setattr(module, "draw_overlay", note)
    box = [0.5, 0.5, 0.1, 0.1]
    tube = Tube(ages=(6, 4, 2, 0), steps=[0, 1], boxes=[box, box], visible=[0.9, 0.1])
    assert len(list(draw_tube(tube, [np.zeros((64, 64, 3), np.uint8)] * 2, "follow the red ball"))) == 2
    assert drawn == [box, None]


def test_ones_own_words_are_in_the_scene(timed: Checkpoint) -> None:
    found = ground_episode(timed, "track", SEED, "follow the red ball")
    assert found.instruction == "follow the red ball"


def test_a_video_of_any_size_and_rate_is_read(timed: Checkpoint, asked: list[Observation], tmp_path: Path) -> None:
    ramp = [np.full((96, 128, 3), 8 * i, np.uint8) for i in range(30)]
    path = write_mp4(tmp_path / "in.mp4", ramp, 10)
    assert len(read_video(path, 5.0).pictures) == 15
    video = read_video(path, control_rate_of(timed))
    pictures = video.pictures
    assert len(pictures) == 60  # three seconds at the control rate
    assert abs(int(pictures[40].mean()) - 8 * 20) < 6
    observations = observations_of(timed, pictures)
    size = timed.policy.shapes.size
    assert observations[0]["pixels"]["front"].shape == (size, size, 3)
    found = ground_video(timed, video, "follow the red ball")
    assert len(asked) == 60
    assert found.truth is None
    frames = list(draw_tube(found.tube, found.pictures, found.instruction))
    assert len(frames) == 60
    assert len({frame.shape for frame in frames}) == 1


def test_a_video_that_memory_does_not_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mp4(tmp_path / "slow.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3, 0.01)
    monkeypatch.setattr("eval.videos.available_memory", lambda: 50 * 3 * 512**2)
    assert len(read_video(path, 0.1).pictures) == 30
    with pytest.raises(ValueError, match="its first 100 s are more than the 50 pictures, 20 a second"):
        read_video(path, 20)


def test_the_middle_square_is_taken(timed: Checkpoint) -> None:
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = 200
    assert observations_of(timed, [wide])[0]["pixels"]["front"].min() == 200


def test_what_cannot_be_read_is_told(timed: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; give a video"):
        read_video(tmp_path / "nowhere.mp4", 20)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="not a readable video"):
        read_video(tmp_path / "text.mp4", 20)
    with pytest.raises(ValueError, match="has no words"):
        ground_video(timed, Video(pictures=[]), " ")
    two = SimpleNamespace(policy=SimpleNamespace(config=replace(timed.policy.config, cameras=("front", "wrist"))))
    with pytest.raises(ValueError, match="2 cameras"):
        observations_of(two, [])  # type: ignore[arg-type]


def test_a_rate_that_the_policy_does_not_know_is_that_of_its_task(
    save_tiny: Callable[..., Path], foreign: Path
) -> None:
    use_task_modules([str(foreign)])
    assert control_rate_of(load_checkpoint(save_tiny(control_hz=None, tasks=("dots/plain",)))) == 5
    assert control_rate_of(load_checkpoint(save_tiny(control_hz=50.0, tasks=("dots/plain",)))) == 50
