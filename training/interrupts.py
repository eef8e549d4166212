"""What ends a training early without loss: signals, and the end of the `torchrun` that started it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WATCH = 1.0  # seconds between two looks at whether torchrun is still there


@contextmanager
def interrupts(parent: int) -> Iterator[threading.Event]:
    """Turns SIGINT and SIGTERM into an event for the time of the loop; a second signal acts as usual. The end of the
    `torchrun` that started this process, its parent then, is one, too: nobody else would end it.
    """
    stop, over = threading.Event(), threading.Event()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_watch_parent, args=(parent, stop, over), daemon=True).start()
    if threading.current_thread() is not threading.main_thread():
        try:
            yield stop
        finally:
            over.set()
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: Any) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch_parent(parent: int, stop: threading.Event, over: threading.Event) -> None:
    while not over.wait(WATCH):
        if os.getppid() != parent:
            stop.set()
            return
