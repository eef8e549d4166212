"""A policy's server in a thread of the test's process, and observations for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.serving import ServeConfig
from vla_policy.checkpoint import Checkpoint, load_checkpoint
from vla_policy.server.client import RemotePolicy
from vla_policy.server.serving import PolicyServer

WAIT = 30.0  # seconds until a test gives up; the machine may be busy


@dataclass
class Running:
    """A server at work."""

    server: PolicyServer
    address: str = ""
    clients: list[RemotePolicy] = field(default_factory=list)

    def client(self) -> RemotePolicy:
        self.clients.append(RemotePolicy(self.address, WAIT))
        return self.clients[-1]

    def start(self) -> None:
        ready = threading.Event()
        self._failed: list[BaseException] = []

        def told(address: str) -> None:
            self.address = address
            ready.set()

        async def work() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await self.server.run(told, self._stop)

        def run() -> None:
            try:
                asyncio.run(work())
            except BaseException as error:  # noqa: BLE001 - it is raised again where the test waits
                self._failed.append(error)
                ready.set()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert ready.wait(WAIT)
        self._raise()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
        self._raise()

    def _raise(self) -> None:
        if self._failed:
            raise self._failed.pop()


@pytest.fixture(scope="session")
def served(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def serve(served: Checkpoint) -> Iterator[Callable[..., Running]]:
    """Starts servers; keywords are settings. They are stopped after the test."""
    threads = torch.get_num_threads()
    running: list[Running] = []

    def start(checkpoint: Checkpoint = served, **settings: Any) -> Running:
        one = Running(PolicyServer(checkpoint, "tiny", ServeConfig(port=0, **settings)))
        one.start()
        running.append(one)
        return one

    yield start
    for one in running:
        for client in one.clients:
            client.close()
        one.stop()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def observe(served: Checkpoint) -> Callable[..., dict[str, Any]]:
    """An observation drawn from a seed; keywords replace its entries, and None leaves them out."""
    shapes = served.policy.shapes

    def draw(seed: int = 0, **changes: Any) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        drawn = {
            "pixels": {
                name: rng.integers(0, 256, (shapes.size, shapes.size, 3), dtype=np.uint8)
                for name in served.policy.config.cameras
            },
            "agent_pos": rng.normal(size=shapes.proprioception).astype(np.float32),
            "prompt": ("follow the red ball", "track the blue cube")[seed % 2],
            **changes,
        }
        return {key: value for key, value in drawn.items() if value is not None}

    return draw
