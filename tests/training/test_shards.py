"""Shards and the pool that makes them: the same bytes whatever the workers, interruptions and other tasks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import pytest

import training.shards
from configs.collect import SHARD_EPISODES, CollectConfig
from envs.task import use_task_modules
from envs.workers import NO_GUARD
from training.collect import collect, collect_tasks
from training.data.episodes import Dataset, DatasetError, open_dataset

TASK = "reach"


def assert_same_bytes(left: Path, right: Path) -> None:
    assert sorted(file.name for file in left.iterdir()) == sorted(file.name for file in right.iterdir())
    for file in left.iterdir():
        assert file.read_bytes() == (right / file.name).read_bytes(), file.name


def test_the_number_of_workers_does_not_change_a_byte(
    collected: Dataset, tmp_path: Path, small: dict[str, Any]
) -> None:
    told: list[tuple[int, int, float]] = []
    config = CollectConfig(**{**small, "workers": 2})
    collect(TASK, config, tmp_path / "data", on_progress=lambda *state: told.append(state))
    assert_same_bytes(collected.path, tmp_path / "data")
    assert told[0][0] == 0
    assert told[-1][:2] == (small["episodes"], collected.header["failures"])
    assert told[-1][2] > 0
    assert not (tmp_path / "data.shards").exists()


def test_killed_and_called_again_it_goes_on_where_it_stopped(
    collected: Dataset, tmp_path: Path, small: dict[str, Any]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
from pathlib import Path
from configs.collect import CollectConfig
from training.collect import collect
if __name__ == "__main__":
    progress = lambda episodes, failures, rate: print(episodes, flush=True)
    collect({TASK!r}, CollectConfig(**{small!r}), Path({str(tmp_path / "data")!r}), on_progress=progress)
""")
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == SHARD_EPISODES:
            break
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    shards = tmp_path / "data.shards"
    assert not (tmp_path / "data").exists()
    first = shards / "00000"
    assert open_dataset(first).episodes == SHARD_EPISODES
    assert workers
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    written = first.stat().st_mtime_ns
    (shards / "00001.partial").mkdir(exist_ok=True)  # as an interrupted write leaves it
    kept: list[int] = []

    def note(episodes: int, failures: int, rate: float) -> None:
        kept.append(episodes)
        assert first.stat().st_mtime_ns == written

    collect(TASK, CollectConfig(**small), tmp_path / "data", on_progress=note)
    assert kept[0] == SHARD_EPISODES
    assert_same_bytes(collected.path, tmp_path / "data")
    assert not shards.exists()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "workers outlive the process that started them"
        time.sleep(0.05)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many workers collections ask for, which then are interrupted."""
    numbers: list[int] = []

    def start(*_: Any, workers: int, timeout: float) -> Any:
        numbers.append(workers)
        raise InterruptedError

    monkeypatch.setattr(training.shards, "run_jobs", start)
    return numbers


def test_as_many_workers_as_there_are_usable_cores(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.shards, "usable_cores", lambda: 3)
    for shards, workers in ((9, 0), (2, 0), (9, 5)):
        with pytest.raises(InterruptedError):
            collect(TASK, CollectConfig(episodes=shards * SHARD_EPISODES, workers=workers), tmp_path / "data")
    assert asked == [3, 2, 5]


def test_a_finished_collection_is_only_opened(collected: Dataset, tmp_path: Path, small: dict[str, Any]) -> None:
    shutil.copytree(collected.path, tmp_path / "data")
    (tmp_path / "data.shards").mkdir()  # as a call leaves it that is killed while it tidies up
    again = collect(TASK, CollectConfig(**{**small, "workers": 2}), tmp_path / "data")
    assert again.episodes == collected.episodes
    assert not (tmp_path / "data.shards").exists()


@pytest.mark.parametrize("change", [{"noise": 0.1}, {"seed": 1}, {"size": 32}, {"split": "validation"}])
def test_other_settings_are_refused(
    change: dict[str, Any], collected: Dataset, tmp_path: Path, small: dict[str, Any]
) -> None:
    config = CollectConfig(**{**small, **change})
    with pytest.raises(DatasetError, match="collected with other settings") as caught:
        collect(TASK, config, collected.path)
    assert str(collected.path) in str(caught.value)
    with pytest.raises(DatasetError, match="collected with other settings"):
        collect("track", CollectConfig(**small), collected.path)
    (tmp_path / "data.shards").mkdir()
    shutil.copytree(collected.path, tmp_path / "data.shards" / "00000")
    with pytest.raises(
        DatasetError, match=r"data\.shards: left by a collection with other settings, or of another.*; remove it"
    ):
        collect(TASK, config, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_damaged_shard_is_collected_again(collected: Dataset, tmp_path: Path, small: dict[str, Any]) -> None:
    shutil.copytree(collected.path, tmp_path / "data.shards" / "00001")
    with (tmp_path / "data.shards" / "00001" / "pixels.npy").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\x00\x01\x02\x03")
    collect(TASK, CollectConfig(**small), tmp_path / "data")
    assert_same_bytes(collected.path, tmp_path / "data")


def test_shards_of_other_versions_are_not_mixed(
    foreign: Path, tmp_path: Path, one_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_task_modules([str(foreign)])
    config = CollectConfig(episodes=SHARD_EPISODES + 1, size=32, cameras=("top",), noise=0.1)
    now, made = metadata.version, training.shards._Making.add

    def interrupted(making: Any, shard: int, data: Dataset) -> None:
        made(making, shard, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "0.1" if name == "mujoco" else now(name))
        patch.setattr(training.shards._Making, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect("dots/plain", config, tmp_path / "data")
    for _ in range(2):  # what is new is not kept: with the earlier version it can be gone on with
        with pytest.raises(DatasetError, match=rf"with mujoco '{now('mujoco')}', not '0[.]1'; episodes must not be"):
            collect("dots/plain", config, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "0.1" if name == "mujoco" else now(name))
        data = collect("dots/plain", config, tmp_path / "data")
    assert data.header["versions"]["mujoco"] == "0.1"


class TestSeveralTasks:
    """One pool for all of them."""

    TASKS = ("dots/plain", "dots/labelled")
    CONFIG: ClassVar[dict[str, Any]] = {"episodes": 3, "size": 32, "cameras": ("top",), "noise": 0.1}

    def test_each_is_what_it_is_alone(self, foreign: Path, tmp_path: Path, one_process: None) -> None:
        use_task_modules([str(foreign)])
        told: list[tuple[int, int, float]] = []
        paths = {task: tmp_path / "both" / task for task in self.TASKS}
        both = collect_tasks(self.TASKS, CollectConfig(**self.CONFIG), paths, on_progress=lambda *s: told.append(s))
        assert [data.header["task"] for data in both] == list(self.TASKS)
        assert [row[0] for row in told] == [0, 3, 6]
        for task in self.TASKS:
            alone = collect(task, CollectConfig(**self.CONFIG), tmp_path / "alone" / task)
            assert_same_bytes(alone.path, paths[task])
        assert not list(tmp_path.rglob("*.shards"))

    def test_small_ones_have_a_worker_each(
        self, asked: list[int], foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use_task_modules([str(foreign)])
        monkeypatch.setattr(training.shards, "usable_cores", lambda: 9)
        paths = {task: tmp_path / task for task in self.TASKS}
        with pytest.raises(InterruptedError):
            collect_tasks(self.TASKS, CollectConfig(**self.CONFIG), paths)
        assert asked == [2]

    def test_what_lies_in_the_way_of_one_is_found_before_the_work(
        self, foreign: Path, tmp_path: Path, one_process: None
    ) -> None:
        use_task_modules([str(foreign)])
        paths = {task: tmp_path / task for task in self.TASKS}
        collect(self.TASKS[1], CollectConfig(**{**self.CONFIG, "noise": 0.2}), paths[self.TASKS[1]])
        with pytest.raises(DatasetError, match=r"dots/labelled: holds a dataset collected with other settings"):
            collect_tasks(self.TASKS, CollectConfig(**self.CONFIG), paths)
        assert not paths[self.TASKS[0]].exists()


class TestWorkers:
    """One that hangs or is killed costs time and nothing else."""

    CONFIG: ClassVar[dict[str, Any]] = {
        "episodes": 2 * SHARD_EPISODES,
        "size": 32,
        "cameras": ("top",),
        "noise": 0.1,
        "workers": 1,
        "timeout": 2.0,
    }

    @pytest.fixture
    def slow(self, foreign: Path) -> Path:
        """Somebody else's tasks, with an expert that takes its time, so that a worker can be caught at work."""
        text = foreign.read_text().replace("    bare: Any", "    import time\n\n    time.sleep(0.002)\n    bare: Any")
        foreign.write_text(text)
        use_task_modules([str(foreign)])
        return foreign

    @pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=lambda number: number.name)
    def test_its_shard_is_collected_again(self, number: signal.Signals, slow: Path, tmp_path: Path) -> None:
        collect("dots/plain", CollectConfig(**self.CONFIG), tmp_path / "whole")
        struck: list[int] = []

        def strike() -> None:
            while not (tmp_path / "data.shards" / "00000.partial").exists():
                time.sleep(0.005)
            struck.extend(worker for worker in children(os.getpid()) if worker not in before)
            for worker in struck:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, number)

        before = children(os.getpid())
        thread = threading.Thread(target=strike, daemon=True)
        thread.start()
        collect("dots/plain", CollectConfig(**self.CONFIG), tmp_path / "data")
        thread.join(5)
        assert struck
        assert_same_bytes(tmp_path / "whole", tmp_path / "data")
        assert not any(Path(f"/proc/{worker}").exists() for worker in struck)

    def test_one_that_always_dies_stops_the_collection_with_its_seed(self, foreign: Path, tmp_path: Path) -> None:
        dies = "    import os\n\n    os._exit(9)\n    bare: Any"
        foreign.write_text(foreign.read_text().replace("    bare: Any", dies))
        use_task_modules([str(foreign)])
        with pytest.raises(DatasetError, match=r"worker died \(exit code 9\) \(seed 0\); finished shards are kept"):
            collect("dots/plain", CollectConfig(**self.CONFIG), tmp_path / "data")

    def test_terminating_the_command_ends_all_its_processes(self, slow: Path, tmp_path: Path) -> None:
        command = ["collect", "--task-module", str(slow), "--tasks", "dots/plain", "--collect.cameras", "top"]
        more = ["--collect.episodes", "5000", "--collect.workers", "2", "--collect.size", "32", "--out", "data"]
        arguments = [sys.executable, "-m", "vla_policy.cli", *command, *more]
        process = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment())
        assert process.stderr is not None
        shards = tmp_path / "data" / "dots" / "plain.shards"
        wait_until(lambda: len(list(shards.glob("*.partial"))) == 2, seconds=60)
        workers = children(process.pid)
        process.terminate()
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait(20) == 130
        assert "interrupted; finished shards are kept" in said
        assert len(workers) >= 2
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))

    def test_a_script_without_a_guard_is_told_about_it(self, tmp_path: Path, small: dict[str, Any]) -> None:
        program = tmp_path / "program.py"
        program.write_text(f"""
from pathlib import Path
from configs.collect import CollectConfig
from training.collect import collect
collect({TASK!r}, CollectConfig(**{small!r}), Path({str(tmp_path / "data")!r}))
""")
        done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment())
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("training.data.episodes.DatasetError")
        assert NO_GUARD in last
        assert "memory" not in done.stderr


def environment() -> dict[str, str]:
    """For a process in another folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
