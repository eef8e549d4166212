"""Workers that hang, die or fail cost their own job and no other, and none outlives its parent."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envs.workers import NOTHING, Lost, Pulse, run_jobs


def _prepare(pulse: Pulse, setup: str) -> Callable[[int], str]:
    if setup == "mistaken setup":
        raise ValueError("no such thing")
    if setup == "failing setup":
        raise KeyError("gone")

    def handle(job: int) -> str:
        pulse.beat(100 + job)
        if job == 2:
            if setup == "die":
                os._exit(7)
            if setup == "hang":
                time.sleep(60)
            if setup == "mistake":
                raise ValueError("job 2 is no good")
            if setup == "fail":
                raise KeyError("job 2")
            if setup == "fail between items":
                pulse.beat()
                raise RuntimeError("first line\nsecond line")
        if setup == "slow":
            for _ in range(6):
                pulse.beat(100 + job)  # the same item all along, as in a group with one episode left
                time.sleep(0.5)
        return f"{setup} {job}"

    return handle


def _run(setup: str, jobs: int = 5, timeout: float = 3.0) -> tuple[dict[int, str], list[Lost[int]]]:
    done, lost = {}, []
    for answer in run_jobs(deque(range(jobs)), _prepare, setup, workers=2, timeout=timeout):
        if isinstance(answer, Lost):
            lost.append(answer)
        else:
            done[answer[0]] = answer[1]
    return done, lost


def test_all_jobs_are_done() -> None:
    done, lost = _run("fine")
    assert done == {job: f"fine {job}" for job in range(5)}
    assert not lost


@pytest.mark.parametrize(
    ("setup", "item", "reason"),
    [
        ("die", 102, "worker died (exit code 7)"),
        ("hang", 102, "worker hung for 3 s"),
        ("fail", 102, "KeyError: 'job 2' (test_workers.py, line "),
        ("fail between items", NOTHING, "RuntimeError: first line second line (test_workers.py, line "),
    ],
)
def test_a_lost_job_is_named_and_the_rest_finished(setup: str, item: int, reason: str) -> None:
    done, lost = _run(setup)
    assert sorted(done) == [0, 1, 3, 4]
    assert [(one.job, one.item) for one in lost] == [(2, item)]
    assert lost[0].reason.startswith(reason)


def test_a_users_mistake_is_raised_here() -> None:
    with pytest.raises(ValueError, match=r"^job 2 is no good$"):
        _run("mistake")
    with pytest.raises(ValueError, match=r"^no such thing$"):
        _run("mistaken setup")


def test_workers_that_cannot_start_say_why() -> None:
    done, lost = _run("failing setup", jobs=2)
    assert not done
    assert sorted(one.job for one in lost) == [0, 1]
    assert all(one.reason.startswith("KeyError: 'gone' (test_workers.py") for one in lost)


def test_workers_that_cannot_import_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"import os\nassert os.getpid() == {os.getpid()}, 'no library'\ndef prepare(pulse, setup): ..."
    (tmp_path / "only_here.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    only_here = importlib.import_module("only_here")
    [lost] = run_jobs(deque([0]), only_here.prepare, None, workers=1, timeout=3.0)
    assert isinstance(lost, Lost)
    assert lost.reason == "AssertionError: no library (only_here.py, line 2)"


def test_the_time_an_import_takes_is_not_held_against_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"""
import os, time
if os.getpid() != {os.getpid()}:
    time.sleep(2)

def prepare(pulse, setup):
    return lambda job: "done"
"""
    (tmp_path / "slow_here.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    slow_here = importlib.import_module("slow_here")
    assert list(run_jobs(deque([0]), slow_here.prepare, None, workers=1, timeout=0.2)) == [(0, "done")]


def test_work_that_goes_on_is_no_hang() -> None:
    done, lost = _run("slow", jobs=1, timeout=1.5)
    assert done == {0: "slow 0"}
    assert not lost


def test_jobs_may_be_added_while_others_run() -> None:
    jobs, done = deque([0]), []
    for answer in run_jobs(jobs, _prepare, "fine", workers=2, timeout=3.0):
        assert not isinstance(answer, Lost)
        done.append(answer[0])
        if answer[0] < 3:
            jobs.append(answer[0] + 1)
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize("when", ["before the next job", "with the next job unread"])
def test_a_worker_that_died_idle_is_replaced(when: str) -> None:
    jobs, workers = deque([0]), []
    for answer in run_jobs(jobs, _own_number, None, workers=1, timeout=3.0):
        assert not isinstance(answer, Lost)
        workers.append(answer[1])
        if len(workers) == 1:
            if when == "before the next job":
                os.kill(workers[0], signal.SIGKILL)
                _wait_until(lambda: not _runs(workers[0]))
            else:
                os.kill(workers[0], signal.SIGSTOP)
                threading.Timer(0.5, os.kill, (workers[0], signal.SIGKILL)).start()
            jobs.append(1)
    assert len(set(workers)) == 2


def _own_number(pulse: Pulse, setup: None) -> Callable[[int], int]:
    return lambda job: os.getpid()


PROGRAM = """
import os, sys, time
from collections import deque
from envs.workers import run_jobs

def prepare(pulse, setup):
    print(os.getpid(), flush=True)
    return lambda job: time.sleep(600)

if __name__ == "__main__":
    list(run_jobs(deque([0, 1]), prepare, None, workers=2, timeout=600))
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        there = [_runs(worker) for worker in workers]
        parent.kill()
        parent.wait()
    assert all(there)
    _wait_until(lambda: not any(_runs(worker) for worker in workers))


def _runs(process: int) -> bool:
    """Whether it is there and not just waiting to be collected by its parent."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def _wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
