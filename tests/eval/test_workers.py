"""Workers that hang or die cost their own job and no other."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from typing import Any

import pytest

from eval.workers import Lost, run_jobs, serve


def _work(pipe: Connection, mark: Any, setup: str) -> None:
    def handle(job: int) -> str:
        mark.value = 100 + job
        if job == 2 and setup == "die":
            os._exit(7)
        if job == 2 and setup == "hang":
            time.sleep(60)
        if job == 2 and setup == "raise":
            raise ValueError("job 2 is no good")
        return f"{setup} {job}"

    serve(pipe, handle)


def _run(setup: str) -> tuple[dict[int, str], list[Lost[int]]]:
    done, lost = {}, []
    for answer in run_jobs(range(5), _work, setup, workers=2, timeout=3.0):
        if isinstance(answer, Lost):
            lost.append(answer)
        else:
            done[answer[0]] = answer[1]
    return done, lost


def test_all_jobs_are_done() -> None:
    done, lost = _run("fine")
    assert done == {job: f"fine {job}" for job in range(5)}
    assert not lost


@pytest.mark.parametrize(("setup", "reason"), [("die", "exit code 7"), ("hang", "hung for 3 s")])
def test_a_lost_worker_is_named_and_the_rest_finished(setup: str, reason: str) -> None:
    done, lost = _run(setup)
    assert sorted(done) == [0, 1, 3, 4]
    assert [(one.job, one.mark) for one in lost] == [(2, 102)]
    assert reason in lost[0].reason


def test_an_exception_in_a_job_is_raised_here() -> None:
    with pytest.raises(ValueError, match="job 2 is no good"):
        _run("raise")
