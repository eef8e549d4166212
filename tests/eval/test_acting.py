"""How policies act when they are judged: on one thread, and only in tasks whose robot is theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.evaluation import EvalConfig
from configs.seeds import split_seed
from envs import task as registry
from envs.actors import ExpertActor, RandomActor, RepeatingActor
from envs.task import find_task
from eval.acting import make_actor, make_task_for, one_thread
from eval.controls import CONTROLS
from eval.evaluate import evaluate
from eval.ground import ground_episode
from eval.report.episode_video import record
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main
from vla_policy.runner import PolicyActor, PolicyRunner

NAMES = find_task("track").agent_pos_names
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "rate": ({"control_hz": 50.0}, r"control_hz of the policy \(trained on track\) is 50, of task 'track' 20"),
    "order of proprioception": (
        {"agent_pos_names": NAMES[::-1]},
        r"agent_pos_names of the policy \(trained on track\) and task 'track' differ, first 'arm6' and 'ee_x'",
    ),
    "size of proprioception": (
        {"agent_pos_names": NAMES[:-1]},
        r"agent_pos_names of .* differ, first nothing and 'arm6'",
    ),
    "action": ({"action_names": ("dx", "gripper")}, r"task 'track' needs action 'dy', the policy gives dx, gripper"),
}
USES: dict[str, Callable[[Path], list[str]]] = {
    "eval": lambda out: ["--episodes", "1", "--out", str(out)],
    "rollout": lambda out: ["--video", str(out / "video.mp4")],
    "ground": lambda out: ["--task", "track", "--out", str(out)],
}


def test_one_thread_is_for_a_while_only() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_who_acts_under_a_condition(tiny_checkpoint: Path) -> None:
    runner, spec = PolicyRunner(load_checkpoint(tiny_checkpoint)), find_task("track")
    actors = {name: type(make_actor(condition, runner, spec)) for name, condition in CONTROLS.items()}
    others = {"previous_action": RepeatingActor, "random_action": RandomActor, "expert": ExpertActor}
    assert actors == {name: others.get(name, PolicyActor) for name in CONTROLS}


@pytest.mark.parametrize("what", REFUSED)
def test_a_policy_for_another_robot_is_refused_wherever_it_would_act(
    what: str, save_tiny: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    purpose, words = REFUSED[what]
    path = save_tiny(**purpose)
    for command, more in USES.items():
        assert main([command, str(path), *more(tmp_path / command)]) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        with pytest.raises(ValueError, match=words):
            raise ValueError(line)


def test_so_is_one_whose_camera_the_task_has_not(
    wrist_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, forget_tasks: None
) -> None:
    monkeypatch.setitem(registry._REGISTRY, "track", replace(find_task("track"), cameras=("front",)))
    checkpoint, seed = load_checkpoint(wrist_checkpoint), split_seed("test", 0)
    words = "the policy sees camera 'wrist', task 'track' offers front"
    for use in (
        lambda: make_task_for(checkpoint, find_task("track")),
        lambda: record(checkpoint, "track", seed),
        lambda: ground_episode(checkpoint, "track", seed),
    ):
        with pytest.raises(ValueError, match=words):
            use()


def test_a_rate_that_was_not_written_down_is_not_compared(save_tiny: Callable[..., Path]) -> None:
    make_task_for(load_checkpoint(save_tiny(control_hz=None)), find_task("track")).close()


def test_a_policy_may_have_more_actions_than_the_task(save_tiny: Callable[..., Path]) -> None:
    path = save_tiny(action_names=("gripper", "dy", "dx"))
    make_task_for(load_checkpoint(path), find_task("track")).close()
    results = evaluate(path, EvalConfig(episodes=1, workers=1, controls=()))
    assert results.tasks["track"].conditions["policy"].invalid == 0
