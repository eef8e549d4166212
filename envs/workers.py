"""The one pool of worker processes, of which one may hang, die or fail: its job is reported, the rest goes on.

A `ProcessPoolExecutor` gives up altogether when a worker dies and cannot end one that hangs; collection and evaluation
need both.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
NOTHING = -1
NO_GUARD = 'worker processes import your script: put what it does under `if __name__ == "__main__":`'
START_SECONDS = 300.0  # to import what the work needs, before the first beat; a shorter timeout does not hold there


class Pulse:
    """What a worker tells its parent unasked: that it is getting on, and with which item of its job.

    Without locks: a worker that dies while it holds one would stop its parent for ever.
    """

    def __init__(self, context: Any) -> None:
        self._beats, self._item = context.Value("q", 0, lock=False), context.Value("q", NOTHING, lock=False)

    def beat(self, item: int = NOTHING) -> None:
        """Say that something was done, and what comes next: an item of the job, or NOTHING that one item stands for."""
        self._item.value = item
        self._beats.value += 1

    @property
    def beats(self) -> int:
        return int(self._beats.value)

    @property
    def item(self) -> int:
        return int(self._item.value)


@dataclass(frozen=True, kw_only=True)
class Lost(Generic[Job]):
    """A job that came to nothing. `item` is what the worker was at according to its pulse, NOTHING if not known."""

    job: Job
    item: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Done:
    result: Any


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Why there is no result. mistake: a user's. last: the worker can do nothing more. begun: the job was."""

    reason: str
    item: int = NOTHING
    mistake: bool = False
    last: bool = False
    begun: bool = True


class _Worker:
    def __init__(self, packed: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._pulse = Pulse(context)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self._pulse, packed), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Any = None
        self._since, self._seen, self._before = 0.0, 0, 0

    def take(self, job: Any) -> bool:
        """Hand over a job; False if the worker is seen to have died meanwhile."""
        self._since, self._before = time.monotonic(), self._pulse.beats
        try:
            self.pipe.send(job)
        except OSError:
            return False
        self.job = job
        return True

    def answer(self, timeout: float, *, ready: bool) -> _Done | _Failure | None:
        """What became of the job, None if the worker is still at it; `ready`: there is a message, or it is dead."""
        beats, item = self._pulse.beats, self._pulse.item
        if ready:
            try:
                answer: _Done | _Failure = self.pipe.recv()
            except (EOFError, OSError):
                self.process.join(timeout=5)
                # Of a worker that had done other jobs and did not beat since it has this one, it died before.
                begun = self._before == 0 or beats > self._before
                reason = f"worker died (exit code {self.process.exitcode})"
                if not beats and self.process.exitcode == 1:  # in its first steps, which import the caller's script
                    reason = f"worker could not start (exit code 1); {NO_GUARD}, or see its message above"
                return _Failure(reason=reason, item=item, last=True, begun=begun)
            return answer
        if beats != self._seen:
            self._seen, self._since = beats, time.monotonic()
        patience = timeout if beats else max(timeout, START_SECONDS)
        if time.monotonic() - self._since > patience:
            return _Failure(reason=f"worker hung for {patience:g} s", item=item, last=True)
        return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_jobs(
    jobs: deque[Job], prepare: Callable[[Pulse, Any], Callable[[Any], Any]], setup: Any, *, workers: int, timeout: float
) -> Iterator[tuple[Job, Any] | Lost[Job]]:
    """Run jobs in up to `workers` processes; yields (job, result), or `Lost`, as they come.

    Args:
        jobs: taken from the left; more may be added between two answers.
        prepare: called once in every process as `prepare(pulse, setup)`, and returns what does a job.
        timeout: seconds without a beat after which a worker counts as hung and is ended.

    Raises:
        ValueError: `prepare` or a job raised one, which means that what was asked for cannot be done.
    """
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        # A new process imports the script that started it, and is on its way through it again.
        raise RuntimeError(NO_GUARD)
    # Packed here, unpacked under the worker's eyes: it can then report what it fails to import.
    packed = pickle.dumps((prepare, setup))
    crew: list[_Worker] = []
    try:
        while jobs or any(worker.job is not None for worker in crew):
            _hand_out(jobs, crew, packed, workers)
            busy = [worker for worker in crew if worker.job is not None]
            ready = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=1.0)
            for worker in busy:
                answer = worker.answer(timeout, ready=worker.pipe in ready or worker.process.sentinel in ready)
                if answer is None:
                    continue
                job, worker.job = worker.job, None
                if isinstance(answer, _Done):
                    yield job, answer.result
                    continue
                if answer.mistake:
                    raise ValueError(answer.reason)
                if answer.last:
                    worker.stop()
                    crew.remove(worker)
                if answer.begun:
                    yield Lost(job=job, item=answer.item, reason=answer.reason)
                else:
                    jobs.appendleft(job)
    finally:
        for worker in crew:
            worker.stop()


def _hand_out(jobs: deque[Job], crew: list[_Worker], packed: bytes, workers: int) -> None:
    """Give jobs to idle workers, and start new ones while there are fewer than `workers`."""
    while jobs:
        idle = next((worker for worker in crew if worker.job is None), None)
        if idle is None:
            if len(crew) == workers:
                return
            idle = _Worker(packed)
            crew.append(idle)
        if idle.take(jobs[0]):
            jobs.popleft()
        else:
            idle.stop()
            crew.remove(idle)


def _serve(pipe: Connection, pulse: Pulse, packed: bytes) -> None:
    """A worker's life: prepare once, then take a job and send its result, or why there is none."""
    start_worker()
    try:
        # From our own parent, through the pipe that starts every process; unpacked here so that an import that fails
        # is reported in words.
        prepare, setup = pickle.loads(packed)
        pulse.beat()
        handle = prepare(pulse, setup)
    except Exception as error:  # noqa: BLE001 - the parent decides what it means
        pipe.send(_failure(error, NOTHING, last=True))
        return
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pulse.beat()
        try:
            answer: _Done | _Failure = _Done(result=handle(job))
        except Exception as error:  # noqa: BLE001 - the parent decides what it means
            answer = _failure(error, pulse.item)
        pulse.beat()  # whatever happens next is not the last item's fault
        pipe.send(answer)


def _failure(error: Exception, item: int, *, last: bool = False) -> _Failure:
    """As text: not every exception survives the way to another process."""
    said = " ".join(str(error).split())
    if isinstance(error, ValueError):
        return _Failure(reason=said, mistake=True)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return _Failure(reason=f"{type(error).__name__}: {said} ({where})", item=item, last=last)


def start_worker() -> None:
    """Leave interrupts to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would finish its job, or wait for the next one for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
