"""What the commands do before and after the work: nothing is reported of another run, and no work is lost."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.commands import COMMANDS
from eval import commands, judge
from eval.results import CheckpointInfo, Results
from training.data.episodes import Dataset
from training.run_folder import describe
from training.state import FILE
from vla_policy.cli import main

WriteSmall = Callable[..., Dataset]
RESULTS = Results(checkpoint=CheckpointInfo(path="default", provenance={}), seed=0, complete=False)


def error(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert main(list(arguments)) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def _replace(monkeypatch: pytest.MonkeyPatch, command: str, function: Callable[[list[str]], int]) -> None:
    """Another function in place of a command's own."""
    module, _, name = COMMANDS[command].run.partition(":")
    monkeypatch.setattr(importlib.import_module(module), name, function)


class TestDemo:
    @pytest.fixture
    def demo(self, write_small: WriteSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The arguments of a demo that collects and evaluates nothing, and whose training only leaves its files."""
        data = write_small()

        def train(config: Any, datasets: list[Dataset], out: Path, *, resume: bool) -> int:
            self.trained.append(resume)
            (out / "checkpoint").mkdir(parents=True, exist_ok=True)
            (out / "checkpoint" / "COMPLETE").write_text("")
            (out / "config.json").write_text(json.dumps(describe(config.policy, config.train, datasets)))
            (out / "state" / FILE).unlink(missing_ok=True)
            return 0

        self.trained: list[bool] = []
        self.datasets = [data]
        monkeypatch.setattr(commands, "collect_all", lambda *_: self.datasets)
        monkeypatch.setattr(commands, "train_all", train)
        monkeypatch.setattr(commands, "judge", lambda *_, **__: None)
        return ["demo", "--config", "debug", "--out", str(tmp_path / "run")]

    def test_a_finished_training_is_not_repeated(self, demo: list[str], tmp_path: Path) -> None:
        assert main(demo) == 0
        (tmp_path / "run" / "train" / "state").mkdir()  # emptied, but not removed: there is nothing to resume
        assert main(demo) == 0
        assert self.trained == [False]

    def test_an_unfinished_one_goes_on(self, demo: list[str], tmp_path: Path) -> None:
        assert main(demo) == 0
        (tmp_path / "run" / "train" / "state").mkdir()
        (tmp_path / "run" / "train" / "state" / FILE).write_text("")
        assert main(demo) == 0
        assert self.trained == [False, True]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--train.relabel", "0"], "train.relabel was 1.0 and is now 0.0"),
            (["--policy.width", "32"], "and is now 32"),
        ],
    )
    def test_a_finished_training_with_other_settings_is_not_passed_off(
        self, demo: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
    ) -> None:
        assert main(demo) == 0
        capsys.readouterr()
        message = error(capsys, *demo, *arguments)
        assert words in message
        assert "choose another --out" in message
        assert self.trained == [False]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--eval.controls", "frozen_frame"], "did you mean frozen_frames?"),
            (["--eval.controls", "all,expert"], "control 'all' is unknown"),
            (["--eval.tasks", "trak"], "did you mean track?"),
            (["--policy.cameras", "wrist"], "policy.cameras has 'wrist', which collect.cameras does not record"),
        ],
    )
    def test_a_mistake_in_what_comes_last_comes_to_light_first(
        self, demo: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
    ) -> None:
        assert words in error(capsys, *demo, *arguments)
        assert self.trained == []

    def test_nor_one_with_other_data(
        self, demo: list[str], capsys: pytest.CaptureFixture[str], write_small: WriteSmall
    ) -> None:
        assert main(demo) == 0
        capsys.readouterr()
        self.datasets = [write_small("other", seed=7)]
        assert "data.dataset 0 (track) was" in error(capsys, *demo)


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_training_a_finished_run_says_that_it_is_finished(
    write_small: WriteSmall, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    write_small("track")
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint" / "COMPLETE").write_text("")
    arguments = ["train", "--config", "debug", "--data", str(tmp_path), "--out", str(tmp_path / "run"), *more]
    message = error(capsys, *arguments, "--train.threads", "1")
    assert "holds a finished run, which cannot be gone on with; choose another --out" in message


class TestEval:
    @pytest.fixture
    def given(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """The settings that an evaluation was started with; it finishes one condition and is interrupted."""
        started: list[Any] = []

        def evaluate(path: Path, config: Any, *, on_progress: Any, on_condition: Any, take_up: Any) -> Results:
            started.append(config)
            on_progress("track", "policy", 4, 8)
            on_condition(RESULTS)
            raise KeyboardInterrupt

        monkeypatch.setattr("eval.evaluate.evaluate", evaluate)
        monkeypatch.setattr("vla_policy.checkpoint.load_checkpoint", lambda path: None)
        return started

    def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(
        self, given: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("mine")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            message = error(capsys, "eval", "default", "--out", str(out))
            assert message.startswith(f"vla: --out {out}: no folder that can be written to")
        assert given == []
        assert (tmp_path / "file").read_text() == "mine"

    def test_an_interrupt_leaves_the_conditions_that_were_finished(
        self, given: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        message = error(capsys, "eval", "default", "--out", str(tmp_path), code=130)
        assert message == f"vla: interrupted; {COMMANDS['eval'].kept}"
        assert json.loads((tmp_path / "unfinished" / "results.json").read_text())["complete"] is False

    def test_the_progress_ends_with_the_evaluation(
        self, given: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended: list[str] = []

        class Progress(judge.Progress):
            def __exit__(self, *_: Any) -> None:
                ended.append(self._label)

        monkeypatch.setattr(judge, "Progress", Progress)
        assert main(["eval", "default", "--out", str(tmp_path)]) == 130
        assert ended == ["evaluate"]

    def test_short_options_change_the_evaluation(self, given: list[Any], tmp_path: Path) -> None:
        more = ["--tasks", "reach,track", "--controls=expert,blank_image", "--episodes", "3", "--seed", "5"]
        assert main(["eval", "default", "--config", "debug", "--out", str(tmp_path), *more]) == 130
        assert main(["eval", "default", "--tasks=[track]", "--out", str(tmp_path)]) == 130
        first, second = given
        assert first.tasks == ("reach", "track")
        assert first.controls == ("expert", "blank_image")
        assert (first.episodes, first.seed, second.episodes) == (3, 5, 200)
        assert (second.tasks, second.controls) == (("track",), ("shuffled_instruction",))


class TestErrors:
    @pytest.mark.parametrize(
        ("problem", "words"),
        [
            (OSError(errno.ENOSPC, "No space left on device", "data/x"), "data/x: no space left on device; free some"),
            (OSError(errno.EIO, "Input/output error"), "input/output error"),
            (OSError("a sentence\nof ours"), "a sentence of ours"),
            (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"), "x: not a directory; a part of this path is"),
            (PermissionError(errno.EACCES, "Permission denied", "x"), "x: permission denied; choose a place where"),
            (ValueError("two\nlines"), "two lines"),
        ],
    )
    def test_what_the_system_refuses_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: Exception, words: str
    ) -> None:
        def fail(_: list[str]) -> int:
            raise problem

        _replace(monkeypatch, "tasks", fail)
        assert error(capsys, "tasks").startswith(f"vla: {words}")

    def test_a_file_where_a_folder_should_be(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").write_text("")
        message = error(capsys, "collect", "--config", "debug", "--out", str(tmp_path / "file" / "data"))
        assert "not a directory; a part of this path is a file" in message

    def test_being_terminated_is_an_interrupt_too(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = signal.getsignal(signal.SIGTERM)

        def terminated(_: list[str]) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            return 0

        _replace(monkeypatch, "compare", terminated)
        assert "finished rows and saved states are kept" in error(capsys, "compare", code=130)
        assert signal.getsignal(signal.SIGTERM) == before

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("collect", "interrupted; finished shards are kept"),
            ("demo", "interrupted; what was collected and trained is kept"),
            ("train", "interrupted; where a state was saved, --resume goes on"),
            ("tasks", "interrupted"),
        ],
    )
    def test_an_interrupt_says_what_is_kept(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, words: str
    ) -> None:
        def interrupt(_: list[str]) -> int:
            raise KeyboardInterrupt

        _replace(monkeypatch, command, interrupt)
        message = error(capsys, command, code=130)
        assert message.startswith(f"vla: {words}")
        assert (message == "vla: interrupted") == (command == "tasks")
