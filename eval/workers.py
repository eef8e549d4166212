"""Worker processes that survive a job that hangs or dies: it is reported with what it was doing, the rest goes on.

A `ProcessPoolExecutor` gives up altogether when a worker dies and cannot end one that hangs; evaluation needs both.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
NOTHING = -1


@dataclass(frozen=True, kw_only=True)
class Lost(Generic[Job]):
    """A job whose worker hung or died. `mark` is the last number the job noted, NOTHING if none."""

    job: Job
    mark: int
    reason: str


class _Worker:
    def __init__(self, target: Callable[..., None], setup: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.mark = context.Value("q", NOTHING)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(theirs, self.mark, setup), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Any = None
        self.since = 0.0
        self.seen = NOTHING

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_jobs(
    jobs: Sequence[Job], work: Callable[..., None], setup: Any, *, workers: int, timeout: float
) -> Iterator[tuple[Job, Any] | Lost[Job]]:
    """Run every job in one of `workers` processes; yields (job, result), or `Lost`, as they come.

    `work(pipe, mark, setup)` is the process's main function; see `serve`. A worker that notes nothing new for `timeout`
    seconds is ended. An exception in a job is raised here.
    """
    waiting = list(reversed(jobs))
    crew: list[_Worker] = []
    try:
        while waiting or any(worker.job is not None for worker in crew):
            while waiting and len(crew) < workers:
                crew.append(_Worker(work, setup))
            for worker in crew:
                if worker.job is None and waiting:
                    worker.job, worker.since, worker.mark.value = waiting.pop(), time.monotonic(), NOTHING
                    worker.pipe.send(worker.job)
            busy = [worker for worker in crew if worker.job is not None]
            ready = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=1.0)
            for worker in busy:
                job, mark = worker.job, worker.mark.value
                if worker.pipe in ready or worker.process.sentinel in ready:
                    try:
                        result = worker.pipe.recv()
                    except (EOFError, OSError):
                        reason = f"worker died (exit code {_exit_code(worker)})"
                    else:
                        worker.job = None
                        if isinstance(result, BaseException):
                            raise result
                        yield job, result
                        continue
                elif mark != worker.seen:
                    worker.seen, worker.since = mark, time.monotonic()
                    continue
                elif time.monotonic() - worker.since > timeout:
                    reason = f"worker hung for {timeout:.0f} s"
                else:
                    continue
                worker.stop()
                crew.remove(worker)
                yield Lost(job=job, mark=mark, reason=reason)
    finally:
        for worker in crew:
            worker.stop()


def serve(pipe: Connection, handle: Callable[[Any], Any]) -> None:
    """A worker's loop: take a job, send its result or the exception it raised. Interrupts are left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            answer = handle(job)
        except Exception as error:  # noqa: BLE001 - handed to the parent, which raises it
            answer = error
        pipe.send(answer)


def _exit_code(worker: _Worker) -> int | None:
    worker.process.join(timeout=5)
    return worker.process.exitcode
