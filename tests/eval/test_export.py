"""`vla export`: the whole way with a check, somebody else's units, the example, and mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eval.export_check as checking
from training.data.episodes import Dataset
from vla_policy.cli import main

ROOT = Path(__file__).parents[2]
DOTS = {
    "tasks": ("dots/plain",),
    "action_names": ("right", "down"),
    "agent_pos_names": ("x", "y"),
    "control_hz": 5.0,
}


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
    command = ["export", str(checkpoint), *mine, "--format", "torch", "--task", "dots/plain", "--out", "made"]
    assert main([*command, "--samples", "15", "--check", "data/dots/plain"]) == 0
    described = json.loads((tmp_path / "made" / "export.json").read_text())
    assert (described["action_low"], described["action_high"]) == ([-2, -2], [3, 3])
    found = json.loads((tmp_path / "made" / "check.json").read_text())
    assert found["observations"] == 15
    assert found["weights_sha256"] == described["weights_sha256"]
    for graph in ("window", "stream"):
        assert set(found["graphs"][graph]["largest_difference"]) == {"actions", "boxes"}
        assert found["graphs"][graph]["rate_over_policy"] > 0
    assert checking.largest_difference(found) < 1e-5
    assert "window: 15 observations" in capsys.readouterr().out


def test_what_differs_is_noticed(
    tiny_checkpoint: Path,
    write_small: Callable[..., Dataset],
    save_tiny: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_small()
    checkpoint = save_tiny(action_names=("dx", "dy"), agent_pos_names=data.interface.agent_pos_names, control_hz=20.0)
    monkeypatch.setattr(checking, "TOLERANCE", 0.0)
    opened = checking.open_graphs

    def shifted(folder: Path, threads: int) -> Any:
        described, runs = opened(folder, threads)
        run = runs["stream"]
        return described, {**runs, "stream": lambda inputs: {k: v + 0.25 for k, v in run(inputs).items()}}

    monkeypatch.setattr(checking, "open_graphs", shifted)
    command = ["export", str(checkpoint), "--format", "torch", "--out", str(tmp_path / "made"), "--samples", "9"]
    assert main([*command, "--check", str(data.path)]) == 1
    assert "stream: 9 observations, at most 2.5e-01 off" in capsys.readouterr().out
    assert main(["export", str(tiny_checkpoint), "--out", str(tmp_path / "made"), "--check", str(data.path)]) == 2
    assert "agent_pos_names" in capsys.readouterr().err


def test_the_example_runs_an_episode_without_torch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert main(["export", str(tiny_checkpoint), "--task", "track", "--out", str(tmp_path / "made")]) == 0
    example = ROOT / "docs" / "examples" / "run_onnx.py"
    code = f"""
import runpy, sys
sys.argv = ["run_onnx.py", {str(tmp_path / "made")!r}, "track"]
runpy.run_path({str(example)!r}, run_name="__main__")
print(sorted({{"torch", "vla_policy", "transformers"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said, loaded = done.stdout.splitlines()
    assert re.fullmatch(r"'.*': (failure|success) after \d+ steps", said)
    assert loaded == "[]"


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
