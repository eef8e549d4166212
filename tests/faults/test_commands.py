"""Readers that go, and task modules that are named like libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envs.task import MODULES
from vla_policy.cli import main

FOREIGN = Path(__file__).resolve().parents[1] / "foreign.py"


@pytest.mark.parametrize("arguments", ["tasks", "--help", "eval --help"])
def test_a_reader_that_has_read_enough(environment: dict[str, str], arguments: str) -> None:
    """As `vla tasks | head -n 1`, with a pipe that nobody reads from the beginning."""
    code = f"sleep 0.5; exec {sys.executable} -m vla_policy.cli {arguments}"
    done = subprocess.run(
        ["bash", "-c", f"({code}; ) | true; echo ${{PIPESTATUS[0]}}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    assert done.stdout in ("141\n", "0\n")  # argparse holds its tongue about what it could not print


@pytest.mark.parametrize("name", ["json", "wave", "torch", "eval"])
def test_a_task_module_with_a_librarys_name(
    forget_tasks: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    module = tmp_path / f"{name}.py"
    module.write_text("raise SystemExit('was run')")
    code = main(["tasks", "--task-module", str(module)])
    assert code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"vla: --task-module {module}: ValueError: ")
    assert "rename the file" in line or "choose another file name" in line


def test_messages_name_what_the_module_was_given_by(
    forget_tasks: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODULES, str(tmp_path / "nowhere.py"))
    assert main(["tasks"]) == 2
    assert capsys.readouterr().err == f"vla: {MODULES} {tmp_path / 'nowhere.py'}: ValueError: no such file\n"
    monkeypatch.setenv(MODULES, "")
    assert main(["tasks", "--task-module", str(tmp_path / "nowhere.py")]) == 2
    assert capsys.readouterr().err.startswith(f"vla: --task-module {tmp_path / 'nowhere.py'}: ")


def test_a_module_that_fails_is_tried_again_once_it_is_mended(
    forget_tasks: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "my_tasks.py"
    module.write_text("raise RuntimeError('not yet')")
    assert main(["tasks", "--task-module", str(module)]) == 2
    module.write_text(FOREIGN.read_text())
    assert main(["tasks", "--task-module", str(module)]) == 0
    assert "dots/plain" in capsys.readouterr().out


def test_the_help_of_eval_says_what_tasks_are(capsys: pytest.CaptureFixture[str]) -> None:
    run: Callable[[list[str]], int] = main
    with pytest.raises(SystemExit):
        run(["eval", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "tasks to evaluate, short for --eval.tasks" in text
    assert "tasks to demonstrate" not in text
