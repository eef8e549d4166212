"""An evaluation into a folder that holds one: nothing that is finished is lost or mixed up, the same one goes on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.disk import DiskFullError
from configs.seeds import split_seed
from eval import judge
from eval.results import CheckpointInfo, EpisodeResult, Results, TaskResult, load_results, summarise_condition
from vla_policy.cli import main

SET = ("results.json", "table.md", "report.html")
CONDITIONS = ("policy", "expert")


class Evaluation:
    """Stands for `eval.evaluate.evaluate`; interrupted after the condition `until`."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.until = ""

    def __call__(
        self, path: Path, config: Any, *, on_progress: Any, on_condition: Any, take_up: Callable[..., Any]
    ) -> Results:
        def made(conditions: dict[str, Any]) -> Results:
            return Results(
                checkpoint=CheckpointInfo(path="default", weights="a" * 64),
                seed=config.seed,
                settings={"episodes": config.episodes},
                tasks={"track": TaskResult(conditions=conditions)},
                complete=len(conditions) == len(CONDITIONS),
            )

        before = take_up(made({}))
        conditions = dict(before.tasks["track"].conditions) if before else {}
        for name in CONDITIONS:
            if name not in conditions:
                self.ran.append(name)
                seeds = [split_seed("test", config.seed + i) for i in range(config.episodes)]
                conditions[name] = summarise_condition(name, [EpisodeResult(seed=s, success=True) for s in seeds])
                on_condition(made(conditions))
                if name == self.until:
                    raise KeyboardInterrupt
        return made(conditions)


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    made = Evaluation()
    monkeypatch.setattr("eval.evaluate.evaluate", made)
    monkeypatch.setattr("vla_policy.checkpoint.load_checkpoint", lambda path: None)
    return made


def arguments(out: Path, *more: str) -> list[str]:
    return ["eval", "default", "--out", str(out), "--videos", "0", "--episodes", "4", *more]


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_a_finished_one_is_not_overwritten(
    evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path)) == 0
    assert set(content(tmp_path)) == set(SET)
    before = content(tmp_path)
    capsys.readouterr()
    assert main(arguments(tmp_path, "--seed", "5")) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line == (
        f"vla: {tmp_path / 'results.json'}: another evaluation (seed was 0 and is now 5); choose another --out, or "
        "replace it with --overwrite"
    )
    assert content(tmp_path) == before


def test_an_interrupt_while_one_is_replaced_leaves_all_of_it(evaluation: Evaluation, tmp_path: Path) -> None:
    assert main(arguments(tmp_path)) == 0
    before, again = content(tmp_path), arguments(tmp_path, "--seed", "5", "--overwrite")
    evaluation.ran.clear()
    evaluation.until = "policy"
    assert main(again) == 130
    assert content(tmp_path) == before
    assert not load_results(tmp_path / "unfinished" / "results.json").complete
    evaluation.until = ""
    assert main(again) == 0
    assert evaluation.ran == list(CONDITIONS)  # the first one once
    assert {path.name for path in tmp_path.iterdir()} == set(SET)
    results = load_results(tmp_path / "results.json")
    assert (results.seed, results.complete) == (5, True)


def test_an_interrupted_one_goes_on(evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.until = "policy"
    assert main(arguments(tmp_path)) == 130
    assert {path.name for path in tmp_path.iterdir()} == {"unfinished"}
    capsys.readouterr()
    assert main(arguments(tmp_path, "--seed", "5")) == 2
    assert "unfinished/results.json: another evaluation (seed was 0 and is now 5)" in capsys.readouterr().err
    evaluation.until = ""
    assert main(arguments(tmp_path)) == 0
    assert evaluation.ran == list(CONDITIONS)
    assert "goes on from the results of 20" in capsys.readouterr().out


def test_a_finished_one_is_not_done_twice(evaluation: Evaluation, tmp_path: Path) -> None:
    assert main(arguments(tmp_path)) == 0
    assert main(arguments(tmp_path)) == 0
    assert evaluation.ran == list(CONDITIONS)
    assert main(arguments(tmp_path, "--overwrite")) == 0
    assert evaluation.ran == list(CONDITIONS) * 2


def test_each_has_a_folder_of_its_own(evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["eval", "default", "--videos", "0", "--episodes", "4"]) == 0
    made = sorted((tmp_path / "runs" / "eval").iterdir())
    assert len(made) == 2
    assert all(folder.name.startswith("default-20") for folder in made)


def test_results_that_were_edited_are_another_evaluation(
    evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path)) == 0
    path = tmp_path / "results.json"
    path.write_text(path.read_text().replace('"control_rate_hz": null', '"control_rate_hz": 100.0'))
    assert main(arguments(tmp_path)) == 2
    assert "another evaluation (is of another version, or damaged)" in capsys.readouterr().err


def test_videos_that_do_not_fit_cost_nothing_else(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(*_: Any) -> dict[str, Path]:
        raise DiskFullError("a.mp4: not written, the disk is full")

    monkeypatch.setattr(judge, "_record", record)
    assert main([*arguments(tmp_path), "--videos=2"]) == 2
    said = capsys.readouterr()
    assert said.err.strip().endswith(f"Results, table and a report without videos are in {tmp_path}")
    assert "| track | policy |" in said.out
    assert set(SET) <= set(content(tmp_path))
    assert load_results(tmp_path / "results.json").complete


@pytest.mark.long
def test_a_real_one_is_interrupted_and_goes_on(vla: Any, tmp_path: Path) -> None:
    common = ["eval", "default", "--config", "debug", "--tasks", "track", "--controls", "expert", "--videos", "1"]
    common += ["--episodes", "10", "--workers", "1", "--out", str(tmp_path)]
    first = vla(*common)
    until = time.monotonic() + 900
    while not (tmp_path / "unfinished" / "results.json").exists():
        assert time.monotonic() < until
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=300)
    assert first.returncode == 130, said
    half = json.loads((tmp_path / "unfinished" / "results.json").read_text())
    second = vla(*common)
    _, said = second.communicate(timeout=900)
    assert second.returncode == 0, said
    whole = json.loads((tmp_path / "results.json").read_text())
    assert list(half["tasks"]["track"]["conditions"]) == ["policy"]
    assert (
        whole["tasks"]["track"]["conditions"]["policy"]["results"]
        == (half["tasks"]["track"]["conditions"]["policy"]["results"])
    )
    assert {path.name for path in tmp_path.iterdir()} == {*SET, "videos"}
