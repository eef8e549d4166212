"""`vla compare`: rows run as commands, one that fails takes no other with it, and what is done is not done again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from eval.compare import run as compare
from vla_policy.cli import main

GRID = """
run: debug
samples: 48
rows:
  - {}
  - policy.encoder.name: single_frame
"""
FAILING = """\
  - policy.language.name: pretrained
    policy.language.pretrained.source: /nowhere/at/all
"""
RUN = """
tasks: [dots/taught]
collect: {episodes: 6, size: 32, cameras: [top], workers: 1}
policy:
  width: 16
  attention_heads: 2
  frames: 2
  cameras: [top]
  encoder: {backbone: {channels: 8, layers: 1}}
  head: {hidden: 16}
train: {steps: 30, batch: 16, log_every: 1, holdout: 0.25}
eval: {episodes: 4, controls: [frozen_frames]}
"""
TASKS = ("dots/plain", "dots/labelled")


@pytest.fixture
def here(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_cost: None) -> Path:
    """A folder to compare in, with a small run of somebody else's tasks."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN)
    return foreign


def weights(rows: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in rows.rglob("model.safetensors")}


@pytest.mark.usefixtures("one_process")
def test_a_comparison_from_nothing_and_again(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = GRID.replace("run: debug", "run: run.yaml")
    Path("grid.yaml").write_text(grid + FAILING)
    command = ["compare", "grid.yaml", "--task-module", str(here), "--out", "out", "--episodes", "2"]
    assert main(command) == 0
    rows = Path("out") / "rows"
    done = json.loads((rows / "reference" / "samples=48" / "seed=0" / "row.json").read_text())
    assert done["samples"] == 48
    assert done["samples_per_second"] > 0
    assert done["cost"]["flops"] > 0
    failed = next(rows.glob("language=pretrained*/samples=48/seed=0/row.json"))
    assert "no such folder; give a local folder or a hub name" in json.loads(failed.read_text())["failure"]
    table = Path("out/table.md").read_text()
    assert all(f"| {task} | encoder=single_frame | 1 |" in table for task in TASKS)
    assert "no such folder" in table
    assert "<svg" in Path("out/comparison.html").read_text()

    before = weights(rows)
    assert len(before) == 2
    assert main(command) == 0  # only the failed row is tried again
    assert weights(rows) == before

    # Judged again, not trained again; other threads are no reason.
    Path("grid.yaml").write_text(grid)
    more = [*command[:6], "--episodes", "3"]
    assert main(more) == 0
    assert weights(rows) == before
    results = json.loads((rows / "reference" / "samples=48" / "seed=0" / "eval" / "results.json").read_text())
    assert results["tasks"]["dots/plain"]["conditions"]["policy"]["episodes"] == 3
    assert list(results["tasks"]) == list(TASKS)

    # Another budget comes beside what is there. What it costs cannot be measured: it was judged all the same.
    def refuse(*_: Any) -> float:
        raise RuntimeError("out of memory")

    Path("grid.yaml").write_text(grid.replace("samples: 48", "samples: [48, 64]"))
    with monkeypatch.context() as patched:
        patched.setattr("training.bench.training_rate", refuse)
        capsys.readouterr()
        assert main(more) == 0
    assert "reference: its cost could not be measured: out of memory" in capsys.readouterr().out
    judged = json.loads((rows / "reference" / "samples=64" / "seed=0" / "row.json").read_text())
    assert (judged["failure"], judged["samples_per_second"]) == ("", None)
    now = weights(rows)
    assert len(now) == 4
    assert now.items() >= before.items()
    assert (Path("out") / "dots" / "plain_samples.svg").is_file()

    # One that cannot be read takes no other with it, and is judged again.
    lost = rows / "reference" / "samples=64" / "seed=0" / "eval" / "results.json"
    lost.write_text(lost.read_text()[:-100])
    assert main(more) == 0
    assert "results.json: not valid JSON" in Path("out/table.md").read_text()
    assert main(more) == 0
    assert "results.json" not in Path("out/table.md").read_text()
    assert weights(rows) == now

    Path("grid.yaml").write_text(grid + "base: {train.learning_rate: 0.5}\n")
    capsys.readouterr()
    assert main(command) == 1  # every row was made otherwise
    assert "and is now 0.5; give the same settings again" in capsys.readouterr().out


def test_a_mistake_in_the_last_row_comes_to_light_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text("run: debug\nsamples: 48\nrows:\n  - {}\n  - policy.encoder.nmae: conv3d\n")
    assert main(["compare", "grid.yaml", "--out", "out"]) == 2
    told = capsys.readouterr().err
    assert "--policy.encoder.nmae" in told
    assert "did you mean" in told
    assert not Path("out").exists()


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_where_it_stopped(here: Path, request: pytest.FixtureRequest) -> None:
    Path("grid.yaml").write_text("run: run.yaml\nsamples: 800\nrows: [{}]\n")
    command = ["compare", "grid.yaml", "--task-module", str(here), "--out", "out", "--episodes", "2", "--jobs", "2"]
    row = Path("out/rows/reference/samples=800/seed=0")
    log = row / "train" / "log.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-m", "vla_policy.cli", *command]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=environment)
    while not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None, "ended before it was interrupted"
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) != 0
    before = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert before[-1] < 50
    assert not (row / "row.json").exists()
    request.getfixturevalue("one_process")
    assert main(command) == 0
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
    assert json.loads((row / "row.json").read_text())["samples"] == 800


@pytest.mark.parametrize(
    ("option", "told"),
    [("--controls=shufled_instruction", "did you mean shuffled_instruction?"), ("--episodes=0", "must be at least 1")],
)
def test_a_mistake_in_the_evaluation_comes_to_light_first(
    option: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(GRID)
    assert main(["compare", "grid.yaml", "--out", "out", option]) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


def test_threads_do_not_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser changes the working directory while it reads: done in threads, results once went elsewhere."""
    parsed_in = set()
    original = compare.configured

    def watched(run: str, changes: dict[str, Any]) -> Any:
        parsed_in.add(threading.current_thread())
        return original(run, changes)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "configured", watched)
    monkeypatch.setattr(compare._Running, "run", lambda *_: (_ for _ in ()).throw(compare._RowError("not run")))
    Path("grid.yaml").write_text(GRID)
    assert main(["compare", "grid.yaml", "--out", "out", "--episodes", "2", "--jobs", "2"]) == 1
    assert parsed_in == {threading.main_thread()}
    assert Path("out/table.md").is_file()
