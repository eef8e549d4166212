"""Videos of rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.evaluation import EvalConfig, RunnerConfig
from configs.seeds import split_seed
from envs.task import make_task
from eval.evaluate import evaluate
from eval.report import episode_video as module
from eval.report.episode_video import HOLD, record, write_video
from vla_policy.checkpoint import load_checkpoint
from vla_policy.runner import PolicyRunner

SEED = 5
SEEN = 32  # pixels a side of the tiny policy's pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is drawn, frame by frame; the frames themselves are the bare pictures."""
    frames: list[dict[str, Any]] = []

    def note(frame: np.ndarray, **marks: Any) -> np.ndarray:
        frames.append({"picture": frame, **marks})
        return frame

    monkeypatch.setattr(module, "draw_overlay", note)
    monkeypatch.setattr(module, "SCALE", 1)
    monkeypatch.setattr(module, "PICTURE", 64)
    return frames


def test_a_video_of_an_instruction_of_ones_own(tiny_checkpoint: Path, tmp_path: Path) -> None:
    recording = record(load_checkpoint(tiny_checkpoint), "track", 5, instruction="follow the red ball")
    assert recording.episode.target == "red ball"
    assert recording.episode.instruction == "follow the red ball"
    shapes = {frame.shape for frame in recording.frames}
    assert len(shapes) == 1
    assert not np.array_equal(recording.frames[0], recording.frames[60])
    assert write_video(recording, tmp_path / "out.mp4").stat().st_size > 1000


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_picture_boxes_and_arrow_belong_to_one_moment_and_camera(
    camera: str, drawn: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue("tiny_checkpoint" if camera == "front" else "wrist_checkpoint")
    checkpoint = load_checkpoint(path)
    recording = record(checkpoint, "track", SEED, runner=RunnerConfig(execute=4))
    steps = recording.episode.steps
    assert [frame["step"] for frame in drawn] == [*range(steps), steps]
    assert len(recording.frames) == steps + HOLD

    # The same episode again, by the same policy.
    env: Any = make_task("track", cameras=(camera,), size=SEEN).unwrapped
    acting = PolicyRunner(checkpoint, 10, RunnerConfig(execute=4))  # rows as in the video: they change the last bits
    seen, info = env.reset(seed=SEED)
    acting.reset([env.instruction, *[None] * 9])
    for frame in drawn[:30]:
        secret = info["privileged"]
        block = frame["picture"].shape[0] // SEEN
        small = frame["picture"].reshape(SEEN, block, SEEN, block, 3).mean(axis=(1, 3))
        assert np.abs(small - seen["pixels"][camera]).mean() < 8
        if secret["visible"][camera][secret["target"]]:
            assert frame["true_box"] == pytest.approx(secret["boxes"][camera][secret["target"]])
        else:
            assert frame["true_box"] is None
        action = np.clip(acting.act([seen, *[None] * 9])[0], -1, 1).astype(np.float32)
        believed = acting.chunk  # of this moment where it decides, of its last decision in between
        assert believed is not None
        assert frame["predicted_box"] == pytest.approx(believed.aux.boxes[0, -1].tolist(), abs=1e-4)
        np.testing.assert_allclose(frame["location"], believed.aux.location[0, -1], atol=1e-4)
        right, down = frame["action"]
        # It points to where the hand would go in the picture.
        hand = secret["hand"]
        here, there = (np.array(env.in_picture(camera, hand + size * np.array([*action, 0]))) for size in (0, 1e-4))
        way = (there - here) / np.linalg.norm(there - here)
        np.testing.assert_allclose(np.array([right, down]) / np.hypot(right, down), way, atol=1e-2)
        assert np.hypot(right, down) == pytest.approx(np.hypot(*action), rel=0.25, abs=0.01)
        if camera == "front":  # it faces the robot from above: x is down, and foreshortened
            assert (right, down) == pytest.approx((action[1], action[0] * np.sin(np.deg2rad(55))), abs=2e-2)
            assert frame["gripper"] == pytest.approx(env.in_picture("front", hand))
        seen, _, _, _, info = env.step(action)
    env.close()


def test_the_policy_is_asked_once_a_decision(
    tiny_checkpoint: Path, drawn: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    asked: list[int] = []
    act = checkpoint.policy.act
    monkeypatch.setattr(checkpoint.policy, "act", lambda seen: asked.append(len(seen.frames)) or act(seen))
    steps = record(checkpoint, "track", SEED, runner=RunnerConfig(execute=4)).episode.steps
    assert asked == [10] * -(-steps // 4)


def test_a_box_of_what_is_taken_for_hidden_is_not_drawn(
    timed_checkpoint: Path, drawn: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(timed_checkpoint)
    act = checkpoint.policy.act
    seen: list[bool] = []

    def sometimes(observation: Any) -> Any:
        chunk = act(observation)
        seen.append(len(seen) % 3 > 0)
        chunk.aux.visible[:] = 0.9 if seen[-1] else 0.1
        return chunk

    monkeypatch.setattr(checkpoint.policy, "act", sometimes)
    record(checkpoint, "track", SEED, runner=RunnerConfig(execute=1))
    assert [frame["predicted_box"] is not None for frame in drawn[:-1]] == seen


def test_the_end_shows_the_last_moment_and_the_verdict(tiny_checkpoint: Path, drawn: list[dict[str, Any]]) -> None:
    recording = record(load_checkpoint(tiny_checkpoint), "track", SEED)
    last = drawn[-1]
    assert last["verdict"] == f"failure: {recording.episode.failure}"
    assert (last["action"], last["predicted_box"], last["location"]) == (None, None, None)
    assert not np.array_equal(last["picture"], drawn[-2]["picture"])
    assert all(frame["verdict"] is None for frame in drawn[:-1])


def test_where_the_policy_does_not_act_it_shows_no_belief(tiny_checkpoint: Path, drawn: list[dict[str, Any]]) -> None:
    recording = record(load_checkpoint(tiny_checkpoint), "track", SEED, condition="expert")
    assert recording.episode.success
    assert all(frame["predicted_box"] is None and frame["location"] is None for frame in drawn)
    assert drawn[0]["action"] is not None


def test_the_video_shows_the_episode_that_was_judged(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PICTURE", 64)
    found = evaluate(tiny_checkpoint, EvalConfig(episodes=3, workers=1, controls=()))
    [*_, judged] = found.tasks["track"].conditions["policy"].results
    threads: set[int] = set()
    checkpoint = load_checkpoint(tiny_checkpoint)
    act = checkpoint.policy.act

    def spy(observation: Any) -> Any:
        threads.add(torch.get_num_threads())
        return act(observation)

    monkeypatch.setattr(checkpoint.policy, "act", spy)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        recording = record(checkpoint, "track", split_seed("test", 2), row=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == {1}
    assert recording.episode == judged


@pytest.mark.parametrize("text", ["follow the pink ball", "follow the ball", "follow the red ball and the blue cube"])
def test_an_instruction_that_names_no_one_thing_is_refused(tiny_checkpoint: Path, text: str) -> None:
    with pytest.raises(ValueError, match="must name one colour"):
        record(load_checkpoint(tiny_checkpoint), "track", 5, instruction=text)


def test_a_policy_that_tells_time_gets_a_timeline(
    timed_checkpoint: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PICTURE", 64)
    shapes = {}
    for path in (timed_checkpoint, tiny_checkpoint):
        recording = record(load_checkpoint(path), "track", SEED)
        [shapes[path]] = {frame.shape for frame in recording.frames}
    assert shapes[timed_checkpoint][0] > shapes[tiny_checkpoint][0]
