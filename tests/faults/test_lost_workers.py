"""Workers and collectors that are killed: no episode is lost that was whole, none is blamed for another."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.evaluation import EvalConfig, RunnerConfig
from configs.seeds import split_seed
from envs.workers import Pulse
from eval import evaluate as module
from eval.results import EpisodeResult
from training.data.episodes import open_dataset

EPISODES = 12
BAD = split_seed("test", 3)


def _prepare(pulse: Pulse, setup: tuple[Path, RunnerConfig]) -> Callable[[Any], list[EpisodeResult]]:
    """In place of episodes; the folder's name says what goes wrong, and in it is written what was tried."""
    folder = setup[0]

    def handle(job: Any) -> list[EpisodeResult]:
        seeds = [seed for seed in job.seeds if seed is not None]
        with (folder / "tried").open("a") as file:
            file.write(f"{len(seeds)} {BAD in seeds}\n")
        if folder.name == "once" and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for seed in seeds:
            pulse.beat(seed)
            if folder.name == "seed" and seed == BAD:
                os.kill(os.getpid(), signal.SIGKILL)
        return [EpisodeResult(seed=seed, success=True) for seed in seeds]

    return handle


def finish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[int, EpisodeResult], list[str]]:
    folder.mkdir()
    monkeypatch.setattr(module, "_prepare", _prepare)
    config = EvalConfig(episodes=EPISODES, workers=1)
    jobs = [module._Job(task="track", condition="policy", seeds=seeds) for seeds in module._groups(config, "test")]
    found = [episode for _, episodes in module._finish_all(jobs, folder, config) for episode in episodes]
    assert sorted(episode.seed for episode in found) == [split_seed("test", i) for i in range(EPISODES)]
    return {episode.seed: episode for episode in found}, (folder / "tried").read_text().splitlines()


def test_a_worker_that_is_killed_once_costs_no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried = finish(tmp_path / "once", monkeypatch)
    assert all(episode.success for episode in found.values())
    assert tried[0] == "10 True"
    assert [line.split()[0] for line in tried[2:]] == ["1"] * 10  # alone, after all others


def test_a_seed_that_always_kills_its_worker_is_the_only_one_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, tried = finish(tmp_path / "seed", monkeypatch)
    assert [seed for seed, episode in found.items() if not episode.valid] == [BAD]
    assert found[BAD].failure == "worker died (exit code -9)"
    assert [line for line in tried if line.endswith("True")] == ["10 True", "1 True"]


TASKS = Path(__file__).resolve().parents[1] / "foreign.py"
COLLECT = ["--tasks", "dots/plain", "--collect.cameras", "top", "--collect.episodes", "8", "--collect.workers", "1"]


def test_a_collector_that_is_killed_early_goes_on_with_its_episodes(start: Callable[..., Any], tmp_path: Path) -> None:
    tasks = tmp_path / "slow_tasks.py"
    tasks.write_text(
        TASKS.read_text().replace("    bare: Any", "    import time\n\n    time.sleep(0.01)\n    bare: Any")
    )
    command = [sys.executable, "-m", "vla_policy.cli", "collect", "--task-module", str(tasks), *COLLECT]
    command += ["--collect.size", "32", "--out"]
    killed = start(*command, str(tmp_path / "killed"))
    partial = tmp_path / "killed" / "dots" / "plain.shards" / "00000.partial"
    journal, until = partial / "journal.jsonl", time.monotonic() + 300
    while not journal.is_file() or len(journal.read_text().splitlines()) < 4:
        assert time.monotonic() < until
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    lines = journal.read_text().splitlines()
    assert 4 <= len(lines) <= 8
    size = (partial / "pixels.npy").stat().st_size
    assert size > 0
    with (partial / "pixels.npy").open("ab") as file:
        file.write(b"half an episode")
    for folder in ("killed", "whole"):
        process = start(*command, str(tmp_path / folder))
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    left, right = (tmp_path / folder / "dots" / "plain" for folder in ("killed", "whole"))
    assert open_dataset(left).episodes == 8
    assert all(file.read_bytes() == (right / file.name).read_bytes() for file in left.iterdir())
