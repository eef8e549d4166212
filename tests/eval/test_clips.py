"""Whole clips: every frame is read once, and what is said of it is what the policy says of the clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.policy import BackboneConfig, EncoderConfig
from eval.clips import decode_clips
from eval.ground import describe_tube, ground_video
from eval.ground_data import ground_dataset, write_scores
from eval.report.video import write_mp4
from eval.tubes import RULES
from eval.videos import PADDING, Video, observations_of, read_video
from training.data.episodes import Dataset
from vla_policy.checkpoint import Checkpoint, load_checkpoint
from vla_policy.cli import main
from vla_policy.contract import ActionChunk, Observation
from vla_policy.grounding.interval import best_interval

WORDS = "follow the red ball"
FRAMES, STRIDE = 3, 2


@pytest.fixture(scope="module")
def grounding(grounding_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(grounding_checkpoint)


def pictures_of(steps: int, size: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (steps, size, size, 3), dtype=np.uint8))


def watch(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Observation, ActionChunk]]:
    """What the policy is asked, and what it answers."""
    found = []
    act = checkpoint.policy.act

    def spy(observation: Observation) -> ActionChunk:
        found.append((observation, act(observation)))
        return found[-1][1]

    monkeypatch.setattr(checkpoint.policy, "act", spy)
    return found


def test_every_frame_is_read_once(grounding: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    size = grounding.policy.shapes.size
    asked = watch(grounding, monkeypatch)
    pictures = pictures_of(8, size)  # frames at 0, 2, 4 and 6: one clip, and one of a single frame
    tube = decode_clips(grounding, observations_of(grounding, pictures), WORDS)
    assert [observation.frames.shape[1] for observation, _ in asked] == [FRAMES, 1]
    aux = [answer.aux for _, answer in asked]
    boxes = torch.cat([each.boxes[0] for each in aux if each.boxes is not None])
    np.testing.assert_allclose(tube.boxes, boxes[[0, 0, 1, 1, 2, 2, 3, 3]])
    start, end = (torch.cat([getattr(each, name) for each in aux], 1) for name in ("start_logits", "end_logits"))
    first, last, _ = best_interval(start, end)
    assert tube.interval == (STRIDE * int(first), STRIDE * int(last) + STRIDE - 1)


def test_a_single_frame_is_a_video(grounding: Checkpoint) -> None:
    tube = decode_clips(grounding, observations_of(grounding, pictures_of(1, grounding.policy.shapes.size)), WORDS)
    assert tube.interval == (0, 0)
    assert tube.flags().tolist() == [True]


def test_live_the_window_grows_and_ends_in_what_is_read_at_once(grounding: Checkpoint) -> None:
    pictures = pictures_of(2 * FRAMES - 1, grounding.policy.shapes.size)
    live = ground_video(grounding, Video(pictures=pictures), WORDS, decode="live").tube
    whole = ground_video(grounding, Video(pictures=pictures), WORDS, decode="whole").tube
    np.testing.assert_allclose(live.boxes[-1], whole.boxes[-1], atol=1e-5)
    assert live.interval is not None
    assert live.interval[0] == (whole.interval or (None,))[0]


def test_policies_that_act_read_clips_of_all_their_frames(
    timed_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = load_checkpoint(timed_checkpoint)
    asked = watch(timed, monkeypatch)
    stride = timed.policy.config.frame_stride
    tube = decode_clips(timed, observations_of(timed, pictures_of(4 * stride, timed.policy.shapes.size)), WORDS)
    assert [observation.frames.shape[1] for observation, _ in asked] == [FRAMES, FRAMES]
    assert len(tube.during) == len(tube.boxes) == 4 * stride


def test_a_policy_of_one_frame_may_skip_some(save_tiny: Callable[..., Path]) -> None:
    encoder = EncoderConfig(name="single_frame", backbone=BackboneConfig(channels=8, layers=1))
    single = load_checkpoint(save_tiny(policy={"frames": 1, "frame_stride": 4, "encoder": encoder}))
    tube = decode_clips(single, observations_of(single, pictures_of(9, single.policy.shapes.size)), WORDS)
    assert [box == tube.boxes[0] for box in tube.boxes] == [True] * 4 + [False] * 5
    assert tube.boxes[4:8] == [tube.boxes[4]] * 4


def test_clips_need_frames_that_are_evenly_apart(save_tiny: Callable[..., Path]) -> None:
    uneven = load_checkpoint(save_tiny(policy={"frame_ages": (9, 2, 0)}))
    with pytest.raises(ValueError, match=r"frame_ages \[9, 2, 0\] are not evenly apart; take --decode live"):
        decode_clips(uneven, observations_of(uneven, pictures_of(9, uneven.policy.shapes.size)), WORDS)
    pictures = pictures_of(12, uneven.policy.shapes.size)
    assert len(ground_video(uneven, Video(pictures=pictures), WORDS, decode="live").tube.boxes) == 12


def test_pictures_that_are_not_square_are_padded_and_boxes_mapped_back(
    grounding: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_mp4(tmp_path / "wide.mp4", [np.full((64, 128, 3), 250, np.uint8)] * 5, 20)
    video = read_video(path, 20, "letterbox")
    assert video.content == (1, 0.5)
    assert video.pictures[0][:250].min() > 200
    assert (video.pictures[0][260:] == PADDING).all()
    asked = watch(grounding, monkeypatch)
    found = ground_video(grounding, video, WORDS, decode="whole")
    mask, size = asked[0][0].pixel_mask, grounding.policy.shapes.size
    assert mask is not None
    assert mask[0].all(1).tolist() == [row < size // 2 for row in range(size)]
    told = describe_tube(found)
    said = asked[0][1].aux.boxes
    assert said is not None
    x, y, w, h = said[0, 0].tolist()  # as in the paper, shares of what is shown
    assert told["moments"][0]["box"] == pytest.approx([x, y, w, h], abs=1e-4)
    assert found.tube.boxes[0] == pytest.approx([x, y / 2, w, h / 2], abs=1e-5)  # of the square, where it is drawn
    assert told["box"] == "cx, cy, w, h as shares of the picture"
    with pytest.raises(ValueError, match="live does not tell padding from the picture; take --decode whole or --fit"):
        ground_video(grounding, video, WORDS, decode="live")


def test_a_dataset_is_scored_and_written_for_published_evaluators(
    save_tiny: Callable[..., Path],
    grounding_checkpoint: Path,
    write_small: Callable[..., Dataset],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    size = load_checkpoint(grounding_checkpoint).policy.shapes.size
    data, out = write_small(size=size), tmp_path / "out"
    names = {f"{kind}_names": getattr(data.interface, f"{kind}_names") for kind in ("action", "agent_pos")}
    checkpoint = save_tiny(grounding=True, control_hz=20, **names)
    assert main(["ground", str(checkpoint), f"--data={data.path}", f"--out={out}", "--rules.empty=zero"]) == 0
    assert "4 videos: m_tIoU 0." in capsys.readouterr().out
    scores = json.loads((out / "scores.json").read_text())
    assert scores["rules"] == {"end": "next_frame", "hidden": "dropped", "empty": "zero"}
    annotations = json.loads((out / "test_proc.json").read_text())
    told = json.loads((out / "predictions.json").read_text())
    offsets = data.arrays["offsets"]
    for episode, (video, score) in enumerate(zip(annotations, scores["videos"], strict=True)):
        name, length = video["video_id"], int(np.diff(offsets)[episode])
        assert video["frame_count"] == length
        begin, end = video["tube_start_frame"], video["tube_end_frame"]
        assert [begin, end] == data.arrays["events"][episode, data.arrays["targets"][episode]].tolist()
        first, last = told["video_predictions"][name]["sted"]
        shared = max(min(end, last) - max(begin, first), 0)
        assert score["temporal_iou"] == pytest.approx(shared / (end - begin + last - first - shared))
        for step in range(length):
            x0, y0, x1, y1 = told["predictions"][f"{name}_{step}"]["boxes"][0]
            assert 0 <= x0 + x1 <= 2 * size
            assert y0 <= y1
        x, y, w, h = video["trajectory"][0]
        box = data.arrays["boxes"][offsets[episode] + begin, 0, data.arrays["targets"][episode]]
        assert [x + w / 2, y + h / 2, w, h] == pytest.approx((size * box).tolist(), abs=1e-3)
    assert main(["ground", str(checkpoint), f"--data={data.path}", f"--out={out}", "--episodes=9"]) == 2
    assert "has 4 episodes, --episodes asks for 9" in capsys.readouterr().err


def test_one_that_only_grounds_is_scored_on_any_robots_data(
    save_tiny: Callable[..., Path],
    write_small: Callable[..., Dataset],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As `vla import` makes them: of no robot, and for fewer pictures a second."""
    slow = {"grounding": True, "action_names": ("none",), "agent_pos_names": ("none",)}
    checkpoint = save_tiny(control_hz=5, **slow)
    data = write_small(size=load_checkpoint(checkpoint).policy.shapes.size)
    assert data.interface.control_hz == 20
    command = ["ground", str(checkpoint), f"--data={data.path}", f"--out={tmp_path / 'out'}"]
    assert main(command) == 0
    assert "4 videos: m_tIoU" in capsys.readouterr().out
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert len(predictions) == data.steps
    assert main([*command, "--decode=live"]) == 2
    assert "20 pictures a second, the policy reads 5" in capsys.readouterr().err
    assert main(["ground", str(checkpoint), f"--out={tmp_path / 'out'}"]) == 2
    assert "knows no task; give --video and --instruction, or --data" in capsys.readouterr().err


def test_videos_without_an_event_are_said_to_be_left_out(
    grounding: Checkpoint, write_small: Callable[..., Dataset], save_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_small(size=grounding.policy.shapes.size)
    names = {f"{kind}_names": getattr(data.interface, f"{kind}_names") for kind in ("action", "agent_pos")}
    checkpoint = load_checkpoint(save_tiny(grounding=True, control_hz=20, **names))
    judged = ground_dataset(checkpoint, data.path, "whole", RULES)
    assert not any("left out" in line for line in write_scores(tmp_path, judged))
    judged.videos[0].during[:] = False
    assert "left out of test_proc.json and predictions.json: 1 videos with no event" in write_scores(tmp_path, judged)


@pytest.mark.parametrize(("options", "message"), [
    (["--data=x", "--task=track"], "brings its own words"),
    (["--episodes=3"], "goes with --data"),
    (["--data=nowhere"], "no dataset here"),
    (["--decode=all"], "decode"),
    (["--rules.hidden=never"], "hidden"),
])  # fmt: skip
def test_what_cannot_be_meant_is_told_in_a_line(
    grounding_checkpoint: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ground", str(grounding_checkpoint), f"--out={tmp_path / 'out'}", *options]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line
