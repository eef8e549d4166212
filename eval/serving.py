"""How a policy's server does with many clients: how long they wait, and whether they get what they would get alone.

The server is a process of its own, and all clients are one other process. Each client asks again as soon as it has its
answer, so that the server is never idle: what it decides in a second is all that it can, and with many clients the wait
follows from it.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from websockets.asyncio.client import connect

from configs.serving import ServeConfig
from envs.cores import usable_cores
from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint
from vla_policy.server.client import LONGEST
from vla_policy.server.wire import pack, unpack

PERCENTILES = (50, 90, 99)
OBSERVATIONS = 8  # that clients draw from
START = 120.0  # seconds that a server has until it listens
ANSWER = 120.0  # seconds that an answer may take


class LoadError(ValueError):
    """A server that does not start, or does not answer; the message says what it said."""


def serving_load(checkpoint: str, clients: int, seconds: float) -> dict[str, Any]:
    """Measure one client, a tenth of the clients, and all of them, for so many seconds each.

    Args:
        checkpoint: as the user names it.

    Raises:
        LoadError: the server does not start or answer.
        ValueError: there is no such checkpoint, or no clients are asked for.
    """
    if clients < 1:
        raise ValueError(f"--clients {clients} must be at least 1")
    policy = load_checkpoint(resolve_checkpoint(checkpoint))
    texts = ("follow the red ball", "track the blue cube")
    rng = np.random.default_rng(0)
    side = policy.policy.shapes.size
    messages = [
        pack(
            {
                "pixels": {
                    name: rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for name in policy.policy.config.cameras
                },
                "agent_pos": rng.normal(size=policy.policy.shapes.proprioception).astype(np.float32),
                "prompt": texts[i % len(texts)],
                "reset": True,
            }
        )
        for i in range(OBSERVATIONS)
    ]
    config = ServeConfig(port=0, connections=max(clients, ServeConfig.connections))
    counts = sorted({1, max(1, clients // 10), clients})
    cores, load = usable_cores(), os.getloadavg()[0]
    with _server(checkpoint, config) as (address, process):
        alone = asyncio.run(_alone(address, messages))
        rows = []
        for count in counts:
            before = _cpu_seconds(process)
            row = asyncio.run(_measure(address, messages, alone, count, seconds))
            row["server_cpu_ms_per_decision"] = round(1e3 * (_cpu_seconds(process) - before) / row["decisions"], 1)
            rows.append(row)
    others = (
        f"the machine was shared, with a load of {load:.1f} on {cores} cores before: times say little, see server_cpu"
    )
    return {
        "checkpoint": checkpoint,
        "seconds": seconds,
        "server": asdict(config),
        "cores": cores,
        "load_average_before": round(load, 1),
        "note": others if load > cores / 2 else "",
        "python": platform.python_version(),
        "clients": rows,
    }


async def _alone(address: str, messages: list[bytes]) -> list[np.ndarray]:
    """What a client that is alone is answered."""
    async with connect(address, compression=None, proxy=None, max_size=None) as socket:
        await socket.recv()
        return [(await _ask(socket, message))["actions"] for message in messages]


async def _measure(
    address: str, messages: list[bytes], alone: list[np.ndarray], count: int, seconds: float
) -> dict[str, Any]:
    latencies: list[float] = []
    batches: list[int] = []
    different = 0.0
    sockets = [await connect(address, compression=None, proxy=None, max_size=None) for _ in range(count)]
    try:
        for socket in sockets:
            await socket.recv()
        begun = time.perf_counter()

        async def client(number: int) -> None:
            nonlocal different
            asked = number
            while time.perf_counter() - begun < seconds:
                which = asked % len(messages)
                sent = time.perf_counter()
                answer = await _ask(sockets[number], messages[which])
                latencies.append(time.perf_counter() - sent)
                batches.append(answer["server_timing"]["batch"])
                different = max(different, float(np.abs(answer["actions"] - alone[which]).max()))
                asked += 1

        await asyncio.gather(*(client(number) for number in range(count)))
        took = time.perf_counter() - begun
    finally:
        for socket in sockets:
            await socket.close()
    return {
        "clients": count,
        "decisions": len(latencies),
        "decisions_per_second": round(len(latencies) / took, 1),
        "latency_ms": {
            **{f"p{p}": round(1e3 * float(np.percentile(latencies, p)), 1) for p in PERCENTILES},
            "max": round(1e3 * max(latencies), 1),
        },
        "rows_per_forward_pass": round(float(np.mean(batches)), 2),
        "largest_difference_from_alone": different,
    }


async def _ask(socket: Any, message: bytes) -> Any:
    await socket.send(message)
    try:
        async with asyncio.timeout(ANSWER):
            answer = await socket.recv()
    except TimeoutError:
        raise LoadError(f"the server does not answer for {ANSWER:g} s") from None
    if isinstance(answer, str):
        raise LoadError(f"the server refuses: {answer}")
    return unpack(answer, LONGEST)


@contextmanager
def _server(checkpoint: str, config: ServeConfig) -> Iterator[tuple[str, int]]:
    """A server in a process of its own; its address, and the process's number."""
    settings = [f"--port={config.port}", f"--connections={config.connections}"]
    command = [sys.executable, "-m", "vla_policy.cli", "serve", checkpoint, *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()  # empty if it ended
        found = re.search(r"ws://\S+:\d+", line)
        if not found:
            raise LoadError(f"the server does not start: {' '.join(process.stderr.read().split())[-500:]}")
        yield found[0], process.pid
    finally:
        process.terminate()
        try:
            process.communicate(timeout=START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _cpu_seconds(process: int) -> float:
    """Processor time that a process has used, which does not depend on what else the machine does as its speed does."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
