"""`vla export`: the whole way with a check and somebody else's units, and mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eval.export_check as checking
from configs.export import ExportConfig
from eval.export import check
from training.data.episodes import Dataset, open_dataset
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main

DOTS = {
    "tasks": ("dots/plain",),
    "action_names": ("right", "down"),
    "agent_pos_names": ("x", "y"),
    "control_hz": 5.0,
}


@pytest.mark.slow
def test_an_export_in_the_units_of_a_task_is_held_against_the_policy(
    foreign: Path,
    save_tiny: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint, mine = save_tiny(cameras=("top",), **DOTS), ["--task-module", str(foreign)]
    small = ["--collect.cameras", "top", "--collect.size", "32", "--collect.episodes", "3", "--collect.workers", "1"]
    assert main(["collect", *mine, "--config", "debug", "--tasks", "dots/plain", *small, "--out", "data"]) == 0
    command = ["export", str(checkpoint), *mine, "--format", "torch", "--task", "dots/plain", "--out", "exported"]
    assert main([*command, "--samples", "15", "--check", "data/dots/plain"]) == 0
    described = json.loads((tmp_path / "exported" / "export.json").read_text())
    assert (described["action_low"], described["action_high"]) == ([-2, -2], [3, 3])
    found = json.loads((tmp_path / "exported" / "check.json").read_text())
    assert found["observations"] == 15
    assert found["weights_sha256"] == described["weights_sha256"]
    for graph in ("window", "stream"):
        assert set(found["graphs"][graph]["largest_difference"]) == {"actions", "boxes"}
        assert found["graphs"][graph]["rate_over_policy"] > 0
    assert checking.largest_difference(found) < 1e-5
    assert "window: 15 observations" in capsys.readouterr().out

    opened = checking.open_graphs

    def shifted(folder: Path, threads: int) -> Any:
        described, runs = opened(folder, threads)
        run = runs["stream"]
        return described, {**runs, "stream": lambda inputs: {k: v + 0.25 for k, v in run(inputs).items()}}

    monkeypatch.setattr(checking, "open_graphs", shifted)
    data = [open_dataset(tmp_path / "data" / "dots" / "plain")]
    assert check(load_checkpoint(checkpoint), "mine", tmp_path / "exported", data, ExportConfig(samples=9)) == 1
    said = capsys.readouterr().out
    assert re.search(r"stream: 9 observations, at most [2-9]\.\de-01 off", said)
    assert f"differs by more than {checking.TOLERANCE}" in said


def test_a_dataset_of_another_robot_is_refused_before_the_work(
    tiny_checkpoint: Path, write_small: Callable[..., Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    assert main(["export", str(tiny_checkpoint), "--out", str(made), "--check", str(write_small().path)]) == 2
    assert "agent_pos_names of the policy and" in capsys.readouterr().err
    assert not made.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["default", "--format", "onx"], "onx"),
        (["defualt"], "defualt: no checkpoint folder here"),
        (["default", "--task", "trakc"], "task 'trakc' is unknown (did you mean track?"),
        (["default", "--task", "metaworld/reach"], "needs action 'gripper'"),
        (["default", "--check", "nowhere"], "nowhere: no dataset here"),
        (["default", "--samples", "0"], "samples 0 must be at least 1"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
