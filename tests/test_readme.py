"""Every `vla` command in the README runs, in its order, made smaller where it would take long."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from vla_policy.cli import main

README = Path(__file__).parent.parent / "README.md"
COLLECT = ["--collect.episodes", "2"]
TRAIN = ["--train.steps", "2", "--train.batch", "4", "--train.threads", "1"]
EVAL = ["--eval.episodes", "2"]
SMALLER: dict[str, list[str]] = {
    "demo": [*COLLECT, *TRAIN, *EVAL, "--videos", "0"],
    "collect": COLLECT,
    "train": TRAIN,
    "eval": ["--episodes", "1", "--videos", "1", "--controls", "frozen_frames"],
    "dagger": [*COLLECT, *TRAIN, *[f"--dagger.{name}=2" for name in ("episodes", "steps", "validation")]],
    "export": ["--format", "torch"],
    "serve": ["--port", "0", "--seconds", "0.1"],
    "play": ["--port", "0", "--seconds", "0.1"],
    "compare": ["--episodes", "1"],
    "rl": ["--rl.steps=24", "--rl.warmup=8", "--rl.judge_every=12", "--rl.episodes=1"],
    "finetune": [
        *[f"--finetune.{name}={value}" for name, value in (("steps", 8), ("envs", 2), ("decisions", 4), ("batch", 4))],
        *["--finetune.epochs=1", "--finetune.episodes=1", "--finetune.warmup=0", "--finetune.processes=false"],
    ],
    "bench": ["--seconds", "0.5", "--episodes", "1"],
}


def readme_commands() -> list[list[str]]:
    """The table's commands, as argument lists without `vla`."""
    return [shlex.split(found)[1:] for found in re.findall(r"^\| `(vla [^`]+)` \|", README.read_text(), re.MULTILINE)]


def test_every_command_is_in_the_table() -> None:
    from vla_policy.cli import COMMANDS

    assert {command[0] for command in readme_commands()} == set(COMMANDS)


ONE_BY_ONE = ("demo", "tasks", "collect", "data", "train")  # one uses what another made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: None, quick_cost: None) -> Path:
    """A folder to work in, with the grids that a command names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(README.parent / "configs", tmp_path / "configs")
    return tmp_path


def run(command: list[str]) -> int:
    return main([*command, *SMALLER.get(command[0], [])])


@pytest.mark.timeout(600)
def test_the_first_commands_run_in_their_order(here: Path) -> None:
    for command in readme_commands():
        if command[0] in ONE_BY_ONE:
            assert run(command) == 0, command


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command", [c for c in readme_commands() if c[0] not in ONE_BY_ONE], ids=lambda command: command[0]
)
def test_every_other_command_runs(command: list[str], here: Path) -> None:
    # The doctor answers 1 where it finds something wrong with the machine; nobody gave us what is to be imported.
    assert run(command) == {"import": 2}.get(command[0], 0) or command[0] == "doctor"
    made = {"rollout": "out.mp4", "eval": "runs/eval/report.html"}
    assert (here / made.get(command[0], "configs")).exists()


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) == 1
    exec(compile(examples[0], "README.md", "exec"), {})
    assert capsys.readouterr().out.strip().endswith("True")


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (README.parent / "Makefile").read_text()
    named = re.findall(r"^    make (\w+)", README.read_text(), re.MULTILINE)
    assert named == ["demo", "test"]
    assert all(f"\n{name}: " in makefile for name in named)


def test_the_files_it_names_exist() -> None:
    root = README.parent
    for name in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (root / name).exists(), name
