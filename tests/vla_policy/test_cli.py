"""The command line as a user meets it: help, one-line errors, and the whole way with the debug run."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from configs.commands import COMMANDS
from vla_policy.cli import main


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    return lines[0]


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([command, "--help"])
    except SystemExit as leave:
        code = int(leave.code or 0)
    assert code == 0
    assert f"vla {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "did you mean train?"),
        (["train", "--config", "debgu"], "did you mean debug?"),
        (["train", "--train.stps", "3"], "did you mean --train.steps?"),
        (["train", "--train.steps", "many"], "train.steps"),
        (["train", "--train.steps", "0"], "steps 0 must be at least 1"),
        (["train", "--data", "nowhere"], "no dataset here"),
        (["train", "--policy.attention_heads", "7"], "multiple of 4 and of attention_heads 7"),
        (["collect", "--tasks", "[trak]"], "did you mean track?"),
        (["collect", "--tasks", "reach,trak"], "did you mean track?"),
        (["demo", "--policy.head.chunk", "9"], "policy.head.chunk 9 exceeds the 8 steps"),
        (["demo", "--eval.controls", "frozen"], "did you mean frozen_frames?"),
        (["eval", "nowhere"], "no checkpoint folder here"),
        (["eval", "nowhere", "--controls", "frozen"], "did you mean frozen_frames?"),
        (["eval", "nowhere", "--tasks", "trak"], "did you mean track?"),
        (["eval", "nowhere", "--tasks"], "expected one argument"),
        (["rollout", "nowhere"], "no checkpoint folder here"),
        (["tasks", "extra"], "extra"),
        (["tasks", "--task-module", "nowhere.py"], "nowhere.py: ValueError: no such file"),
    ],
)
def test_a_mistake_gets_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in _error(capsys, *arguments)


@pytest.fixture(scope="module")
def debug_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the debug run, and what it printed."""
    out, printed = tmp_path_factory.mktemp("debug") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["demo", "--config", "debug", "--out", str(out), "--videos", "1", "--train.threads", "1"])
    assert code == 0
    return out, printed.getvalue()


def test_the_debug_run_goes_the_whole_way(debug_run: tuple[Path, str]) -> None:
    out, text = debug_run
    results = json.loads((out / "eval" / "results.json").read_text())
    conditions = results["tasks"]["track"]["conditions"]
    assert conditions["policy"]["episodes"] == 4
    assert {"success_rate", "low", "high", "episodes", "invalid"} <= set(conditions["shuffled_instruction"])
    assert "<html" in (out / "eval" / "report.html").read_text()
    assert list((out / "eval" / "videos").glob("*.mp4"))
    assert "too few to quote" in text
    assert "step 30 of 30" in text


def test_what_the_debug_run_made_can_be_used(
    debug_run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(debug_run[0])
    video = tmp_path / "video.webp"
    assert main(["rollout", run, "--instruction", "follow the red ball", "--video", str(video)]) == 0
    assert video.stat().st_size > 1000
    again = ["eval", run, "--tasks", "track", "--episodes", "1", "--controls", "none", "--videos", "0"]
    assert main([*again, "--seed", "3", "--workers", "1", "--out", str(tmp_path / "eval")]) == 0
    capsys.readouterr()
    assert "holds a finished run" in _error(
        capsys, "train", "--config", "debug", "--data", f"{run}/data", "--out", f"{run}/train"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory."),
        RuntimeError("CPU: can't allocate memory"),
    ],
)
def test_a_lack_of_memory_says_what_to_do(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(_arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr("vla_policy.cli._command", lambda _name: out_of_memory)
    assert "out of memory; lower train.batch" in _error(capsys, "train")


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_arguments: list[str]) -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("vla_policy.cli._command", lambda _name: broken)
    with pytest.raises(RuntimeError, match="mat1"):
        main(["train"])


def test_the_help_of_an_evaluation_shows_no_setting_that_it_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    text = capsys.readouterr().out
    assert "--eval.episodes" in text
    assert re.findall(r"--(?:policy|train|collect)\S*", text) == []
    for section in ("policy", "train", "collect"):
        assert f"--{section}: has no part in judging" in _error(capsys, "eval", "default", f"--{section}", "x")


def test_judging_takes_no_settings_of_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--policy.frames: has no part in judging" in _error(capsys, "eval", "default", "--policy.frames", "1")
