"""Progress of long work: a bar where there is a terminal, plain lines now and then where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 10.0


class Progress:
    """Counts up to `total`; shows rate, time left and a few extra words."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._bar = tqdm(total=total, desc=label, unit=unit, dynamic_ncols=True) if sys.stderr.isatty() else None
        self._started = self._spoke = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, extra: str = "") -> None:
        """Report that `done` of the total are finished."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if extra:
                self._bar.set_postfix_str(extra)
            return
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if done < self._total and now - self._spoke < LINE_SECONDS:
            return
        self._spoke = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = f", {(self._total - done) / rate:.0f} s left" if rate > 0 and done < self._total else ""
        words = f" {extra}" if extra else ""
        # Of work that is reported once, when it is done, the rate is not known.
        speed = f", {_per_time(rate)}" if done > self._first else ""
        line = f"{self._label}: {done}/{self._total} {self._unit}{speed}{left}{words}"
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _per_time(rate: float) -> str:
    return f"{rate:.1f}/s" if rate >= 0.1 else f"{60 * rate:.1f}/min"


def brief(rate: float) -> str:
    """A rate in words: two digits below ten, else whole numbers: 0.57, 5.7, 57."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
