"""Grounding a video: what the policy says live, moment by moment, as film and as plain data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from configs.evaluation import RunnerConfig
from configs.seeds import split_seed
from eval import ground as module
from eval.ground import draw_tube, ground, observations_of, read_video, watch, write_grounding
from eval.report.video import write_mp4
from eval.tubes import Tube
from vla_policy.checkpoint import Checkpoint, load_checkpoint
from vla_policy.runner import PolicyRunner

SEED = split_seed("test", 4)


@pytest.fixture(scope="module")
def timed(timed_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(timed_checkpoint)


def test_an_episode_is_grounded_as_it_would_be_live(timed: Checkpoint, tmp_path: Path) -> None:
    watched = watch(timed, "track", SEED)
    steps = len(watched.observations)
    assert len(watched.pictures) == len(watched.truth.during) == steps
    assert watched.truth.during.all()
    tube = ground(timed, watched.observations, watched.instruction)
    assert tube.steps == list(range(steps))

    live = PolicyRunner(timed, 1, RunnerConfig(execute=1))
    live.reset([watched.instruction])
    for step in range(30):
        live.act([watched.observations[step]])
        assert live.chunk is not None
        assert live.chunk.aux.boxes is not None
        assert live.chunk.aux.during is not None
        torch.testing.assert_close(torch.tensor(tube.boxes[step]), live.chunk.aux.boxes[0, -1], atol=1e-5, rtol=0)
        assert tube.during[step] == pytest.approx(live.chunk.aux.during[0, -1].item(), abs=1e-5)
        assert live.chunk.aux.visible is not None
        assert tube.visible[step] == pytest.approx(live.chunk.aux.visible[0, -1].item(), abs=1e-5)

    film, described = write_grounding(tmp_path, tube, watched.pictures, watched.instruction, watched.truth)
    assert film.stat().st_size > 1000
    told = json.loads(described.read_text())
    assert told["instruction"] == watched.instruction
    assert len(told["moments"]) == steps
    assert told["moments"][3]["box"] == pytest.approx(tube.boxes[3], abs=1e-4)
    assert told["moments"][3]["visible"] == pytest.approx(tube.visible[3], abs=1e-4)
    scores = tube.scores(watched.truth.during, watched.truth.boxes, watched.truth.visible)
    assert told["tube_iou"] == scores.tube_iou


def test_a_box_of_what_is_taken_for_hidden_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def note(picture: np.ndarray, **marks: object) -> np.ndarray:
        drawn.append(marks["predicted_box"])
        return picture

    monkeypatch.setattr(module, "draw_overlay", note)
    box = [0.5, 0.5, 0.1, 0.1]
    tube = Tube(span=6, stride=2, steps=[0, 1], boxes=[box, box], visible=[0.9, 0.1])
    assert len(list(draw_tube(tube, [np.zeros((64, 64, 3), np.uint8)] * 2, "follow the red ball"))) == 2
    assert drawn == [box, None]


def test_ones_own_words_are_in_the_scene(timed: Checkpoint) -> None:
    assert watch(timed, "track", SEED, "follow the red ball").instruction == "follow the red ball"


def test_a_video_of_any_size_and_rate_is_read(timed: Checkpoint, tmp_path: Path) -> None:
    ramp = [np.full((96, 128, 3), 8 * i, np.uint8) for i in range(30)]
    path = write_mp4(tmp_path / "in.mp4", ramp, 10)
    pictures = read_video(path)
    assert len(pictures) == 60  # three seconds at the control rate
    assert abs(int(pictures[40].mean()) - 8 * 20) < 6
    observations = observations_of(timed, pictures)
    size = timed.policy.shapes.size
    assert observations[0]["pixels"]["front"].shape == (size, size, 3)
    tube = ground(timed, observations, "follow the red ball")
    frames = list(draw_tube(tube, pictures, "follow the red ball"))
    assert len(frames) == 60
    assert len({frame.shape for frame in frames}) == 1


def test_the_middle_square_is_taken(timed: Checkpoint) -> None:
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = 200
    assert observations_of(timed, [wide])[0]["pixels"]["front"].min() == 200


def test_what_cannot_be_read_is_told(timed: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; give a video"):
        read_video(tmp_path / "nowhere.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="not a readable video"):
        read_video(tmp_path / "text.mp4")
    with pytest.raises(ValueError, match="has no words"):
        ground(timed, [], " ")
    two = SimpleNamespace(policy=SimpleNamespace(config=replace(timed.policy.config, cameras=("front", "wrist"))))
    with pytest.raises(ValueError, match="2 cameras"):
        observations_of(two, [])  # type: ignore[arg-type]
