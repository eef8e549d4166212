"""Decides for all clients: whatever waits when the last batch is done is computed together in one forward pass.

`PolicyRunner` advances its rows in lockstep; clients come, ask and go when they like, so that here only what waits is
computed.

R rows, S chunk steps, A actions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import Observation
from vla_policy.server.session import Window

ENDING = "the server is ending"


class DecisionError(RuntimeError):
    """The policy could not decide; whose fault it is, is not known."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Actions `(S, A)` float32 in [-1, 1], and the step of the newest observation that they are for. wait and infer are
    seconds before and in the forward pass, rows the decisions that were made in it.
    """

    actions: np.ndarray
    step: int
    wait: float
    infer: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class _Asked:
    window: Callable[[], Window]
    answer: asyncio.Future[Decision]
    since: float


class Batcher:
    """Computes in a thread of its own, so that connections are looked after meanwhile.

    Args:
        checkpoint: the policy.
        batch: R at most.
        pad: compute R rows always: then a row's result is the same to the bit, whatever is in the others.
        threads: threads of the computation.
    """

    def __init__(self, checkpoint: Checkpoint, *, batch: int, pad: bool, threads: int) -> None:
        self._policy, self._batch, self._pad = checkpoint.policy, batch, pad
        self._waiting: asyncio.Queue[_Asked] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "decide", initializer=torch.set_num_threads, initargs=(threads,))
        self._ended = False
        self.decisions = 0

    async def decide(self, window: Callable[[], Window]) -> Decision:
        """Wait for a decision.

        Args:
            window: gives what it is made from; called when its computation begins, so that it may be newer than now.

        Raises:
            DecisionError: the computation failed, or the server ends.
        """
        if self._ended:
            raise DecisionError(ENDING)
        answer: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Asked(window=window, answer=answer, since=time.perf_counter()))
        return await answer

    def end(self) -> None:
        """Decide nothing more: who waits or asks is told so."""
        self._ended = True
        while not self._waiting.empty():
            self._waiting.get_nowait().answer.set_exception(DecisionError(ENDING))

    async def run(self) -> None:
        """Decide until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                asked = [await self._waiting.get()]
                while len(asked) < self._batch and not self._waiting.empty():
                    asked.append(self._waiting.get_nowait())
                asked = [one for one in asked if not one.answer.cancelled()]
                if asked:
                    begun = time.perf_counter()
                    windows = [one.window() for one in asked]
                    computed = await loop.run_in_executor(self._thread, self._compute, windows)
                    self._answer(asked, windows, computed, begun)
        finally:
            self._thread.shutdown(cancel_futures=True)

    def _compute(self, windows: list[Window]) -> np.ndarray | DecisionError:
        """Actions (R, S, A), of which the first rows are those of the windows."""
        rows = self._batch if self._pad else len(windows)
        try:
            actions = self._policy.act(stack_windows(windows, rows)).action
            return actions.float().numpy()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch may go well
            reason = " ".join(str(error).split()) or type(error).__name__
            return DecisionError(f"the policy could not decide: {reason[:200]}")

    def _answer(
        self, asked: list[_Asked], windows: list[Window], computed: np.ndarray | DecisionError, begun: float
    ) -> None:
        took = time.perf_counter() - begun
        for row, (one, window) in enumerate(zip(asked, windows, strict=True)):
            if one.answer.cancelled():
                continue
            if isinstance(computed, DecisionError):
                one.answer.set_exception(computed)
            elif not np.isfinite(computed[row]).all():
                one.answer.set_exception(DecisionError("the policy's actions for this observation are not finite"))
            else:
                self.decisions += 1
                one.answer.set_result(
                    Decision(
                        actions=computed[row],
                        step=window.step,
                        wait=begun - one.since,
                        infer=took,
                        rows=len(asked),
                    )
                )


def stack_windows(windows: list[Window], rows: int) -> Observation:
    """The windows as a batch of so many rows. Those that are left over see black pictures and read one word."""

    def column(name: str) -> torch.Tensor:
        values = [getattr(window, name) for window in windows]
        filled = np.zeros((rows, *values[0].shape), values[0].dtype)
        filled[: len(values)] = values
        return torch.from_numpy(filled)

    mask = column("mask")
    mask[len(windows) :, 0] = True
    return Observation(
        frames=column("frames").movedim(-1, 3), agent_pos=column("agent_pos"), tokens=column("tokens"), token_mask=mask
    )
