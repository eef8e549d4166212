"""Somebody else's task, and somebody else's recordings, through the commands, from a folder of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs.collect import CollectConfig
from configs.policy import HeadConfig, PolicyConfig
from configs.run import RunConfig
from configs.seeds import split_seed
from envs.task import find_task, make_task, use_task_modules
from eval.controls import CONTROLS
from eval.report.episode_video import HOLD, picture_of, record
from eval.report.video import write_mp4
from training.commands import check_demonstrable
from training.data.episodes import Episode, open_dataset
from training.data.writer import DatasetWriter
from training.log import read_log
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main

SMALL = ["--config", "debug", "--policy.cameras", "top", "--train.threads", "1", "--train.steps", "2"]
LACKING = {
    "held_out_phrasing": "reset takes no phrasing 'held_out'",
    "unseen_combination": "reset takes no combinations 'held_out'",
    "shuffled_instruction": "it has no counterfactual instructions",
}


@pytest.fixture
def elsewhere(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside the repository, where the commands are called; the module with the tasks is not beside it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def vla(*arguments: str) -> None:
    assert main(list(arguments)) == 0


@pytest.mark.parametrize("task", ["dots/plain", "dots/labelled"])
def test_a_foreign_task_goes_the_whole_way(
    task: str, foreign: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if task == "dots/plain":  # the other one is sent to real workers
        request.getfixturevalue("one_process")
    mine, labelled = ["--task-module", str(foreign)], task == "dots/labelled"
    chosen = [*mine, *SMALL, "--tasks", task]
    vla("collect", *chosen, "--collect.cameras", "top,side", "--collect.episodes", "6", "--collect.workers", "1")
    data = open_dataset(elsewhere / "data" / task)
    assert data.episodes == 6
    assert data.labelled is labelled
    assert data.interface.control_hz == 5

    vla("train", *chosen, "--out", "run")
    [*_, last] = read_log(elsewhere / "run")
    assert math.isfinite(last["loss"])
    purpose = load_checkpoint(elsewhere / "run" / "checkpoint").purpose
    assert (purpose.tasks, purpose.action_names, purpose.agent_pos_names, purpose.control_hz) == (
        (task,),
        ("right", "down"),
        ("x", "y"),
        5,
    )

    capsys.readouterr()
    judged = ["--episodes", "2", "--controls", "all", "--workers", "1", "--videos", "1", "--out", "eval"]
    vla("eval", "run", *mine, *judged)
    said = capsys.readouterr().out
    for control, why in LACKING.items():
        assert f"{task}: no {control}, {why}" in said
    results = json.loads((elsewhere / "eval" / "results.json").read_text())
    conditions = results["tasks"][task]["conditions"]
    assert list(conditions) == [name for name in CONTROLS if name not in LACKING]
    assert results["settings"]["not_offered"] == {task: LACKING}
    assert conditions["expert"]["success_rate"] == 1.0
    assert all(one["invalid"] == 0 for one in conditions.values())
    [first, _] = conditions["policy"]["results"]
    assert first["steps"] == find_task(task).horizon
    assert (first["box_iou"] is not None) is labelled
    assert list((elsewhere / "eval" / "videos").glob("dots/*.mp4"))
    assert (elsewhere / "eval" / "report.html").is_file()

    vla("rollout", "run", *mine, "--video", "video.mp4")
    assert (elsewhere / "video.mp4").stat().st_size > 1000
    if not labelled:  # then nobody taught it where to look
        assert main(["ground", "run", *mine, "--task", task, "--out", "ground"]) == 2
        return
    vla("ground", "run", *mine, "--task", task, "--out", "ground")
    told = json.loads((elsewhere / "ground" / "tube.json").read_text())
    assert told["control_hz"] == 5
    assert told["tube_iou"] is not None


def test_words_that_a_foreign_task_cannot_read_are_refused(
    foreign: Path, save_tiny: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = save_tiny(tasks=("dots/plain",))
    arguments = ["rollout", str(path), "--task-module", str(foreign), "--instruction", "go to the red dot"]
    assert main([*arguments, "--video", str(tmp_path / "out.mp4")]) == 2
    assert "task 'dots/plain' reads no words of a user's; leave --instruction out" in capsys.readouterr().err


def test_its_policy_is_refused_by_our_tasks_and_ours_by_it(
    foreign: Path, save_tiny: Any, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = ["--task-module", str(foreign)]
    theirs = save_tiny(
        tasks=("dots/plain",), action_names=("right", "down"), agent_pos_names=("x", "y"), control_hz=5.0
    )
    for path, task, words in (
        (theirs, "track", "task 'track' needs action 'dx', the policy gives right, down (trained on dots/plain)"),
        (tiny_checkpoint, "dots/plain", "task 'dots/plain' needs action 'right', the policy gives dx, dy"),
    ):
        for command in (
            ["eval", str(path), "--tasks", task, "--episodes", "1"],
            ["rollout", str(path), "--task", task],
        ):
            assert main([*command, *mine]) == 2
            [line] = capsys.readouterr().err.strip().splitlines()
            assert words in line


def test_the_video_is_made_of_the_observations_pictures(foreign: Path) -> None:
    use_task_modules([str(foreign)])
    env = make_task("dots/plain", cameras=("top",), size=32)
    seen, _ = env.reset(seed=0)
    world: Any = SimpleNamespace(env=env, observation=seen)
    drawn = picture_of(world, "top", 256)
    assert drawn.shape == (256, 256, 3)
    small = drawn.reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
    assert np.abs(small - seen["pixels"]["top"]).mean() < 3


def test_a_video_lasts_as_long_as_the_episode_at_its_rate(foreign: Path, save_tiny: Any) -> None:
    use_task_modules([str(foreign)])
    names = {"action_names": ("down", "spare", "right"), "agent_pos_names": ("x", "y"), "control_hz": None}
    checkpoint = load_checkpoint(save_tiny(cameras=("top",), tasks=("dots/plain",), **names))
    recording = record(checkpoint, "dots/plain", split_seed("test", 0))
    assert recording.fps == 5
    assert len(recording.frames) == find_task("dots/plain").horizon + HOLD
    assert recording.episode.valid


def test_a_foreign_task_with_contact_learns_one_label_a_step(foreign: Path) -> None:
    """An expert that does not plan is one label a step, whatever the chunk: nobody has to raise collect.plan_steps."""
    use_task_modules([str(foreign)])
    policy = PolicyConfig(head=HeadConfig(chunk=30), cameras=("top",))
    plain = RunConfig(tasks=("dots/plain", "dots/labelled"), policy=policy, collect=CollectConfig(cameras=("top",)))
    check_demonstrable(plain)
    with pytest.raises(ValueError, match="task 'dots/alone' has no expert"):
        check_demonstrable(RunConfig(tasks=("dots",), policy=policy, collect=CollectConfig(cameras=("top",))))


class TestRecordings:
    """Demonstrations that nobody's expert made: a robot somewhere, no simulator, no boxes, a task nobody registered."""

    @pytest.fixture
    def towels(self, tmp_path: Path) -> Path:
        rng, path = np.random.default_rng(0), tmp_path / "recorded"
        with DatasetWriter(path) as writer:
            for seed in range(4):
                n = 8 + seed
                action = rng.uniform(-1, 1, (n, 3)).astype(np.float32)
                writer.add(
                    Episode(
                        seed=seed,
                        instructions=(f"fold the {('red', 'blue')[seed % 2]} towel",),
                        target=0,
                        success=True,
                        pixels=rng.integers(0, 256, (n, 1, 32, 32, 3), dtype=np.uint8),
                        agent_pos=rng.normal(size=(n, 4)).astype(np.float32),
                        action=action[:, None, None],
                        executed=action,
                        events=np.array([(0, n)]),
                    )
                )
            writer.finish(
                {
                    "task": "kitchen/towels",
                    "cameras": ["top"],
                    "action_names": ["left", "right", "grip"],
                    "agent_pos_names": ["a", "b", "c", "d"],
                    "control_hz": 30,
                }
            )
        return path

    def test_they_train_a_policy(self, towels: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
        vla("train", *SMALL, "--data", str(towels), "--policy.head.chunk", "4", "--out", "run")
        [*_, last] = read_log(elsewhere / "run")
        assert math.isfinite(last["loss"])
        assert math.isfinite(last["validation_loss"])
        purpose = load_checkpoint(elsewhere / "run" / "checkpoint").purpose
        assert purpose.tasks == ("kitchen/towels",)
        assert purpose.control_hz == 30
        capsys.readouterr()
        for command in ("eval", "rollout", "ground"):
            assert main([command, "run"]) == 2
            [line] = capsys.readouterr().err.strip().splitlines()
            assert "task 'kitchen/towels' is unknown" in line

    def test_nobody_grounds_by_a_policy_that_never_saw_a_box(
        self, towels: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        vla("train", *SMALL, "--data", str(towels), "--out", "run")
        write_mp4(elsewhere / "in.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 6, 30)
        assert main(["ground", "run", "--video", "in.mp4", "--instruction", "fold the red towel"]) == 2
        assert "never learned where to look" in capsys.readouterr().err

    def test_a_camera_that_they_lack_is_named(
        self, towels: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["train", *SMALL, "--data", str(towels), "--policy.cameras", "front", "--out", "run"]) == 2
        assert "camera 'front' was not recorded, only top" in capsys.readouterr().err
