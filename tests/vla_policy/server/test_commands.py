"""`vla serve`: it ends in order, and mistakes are one line."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vla_policy.cli import main
from vla_policy.server.serving import PolicyServer


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["serve", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Whoever starts the tests in the background may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    run = PolicyServer.run

    async def run_and_be_told(self: PolicyServer, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        def told(address: str) -> None:
            ready(address)
            os.kill(os.getpid(), number)

        await run(self, told, stop)

    monkeypatch.setattr(PolicyServer, "run", run_and_be_told)
    assert main(["serve", str(tiny_checkpoint), "--port", "0"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    first, last = said.out.strip().splitlines()
    assert re.search(r"on ws://127\.0\.0\.1:\d+, health on http://127\.0\.0\.1:\d+/healthz; Ctrl-C ends it$", first)
    assert last == "ended after 0 decisions for 0 clients, 0 of them refused"


def test_it_can_end_by_itself(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tiny_checkpoint), "--port=0", "--seconds=0.1"]) == 0
    assert "ended after" in capsys.readouterr().out


def test_mistakes_are_one_line(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tiny_checkpoint)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "the port is in use" in error(capsys, path, "--port", str(port))
    assert "no checkpoint folder here" in error(capsys, "no/such/policy")
    assert "not an address of this machine" in error(capsys, path, "--host", "192.0.2.1")
    assert "port 70000 must be at most 65535" in error(capsys, path, "--port", "70000")
    assert "--prot' is unknown (did you mean --port?)" in error(capsys, path, "--prot", "1")
    assert "message 10 is below the" in error(capsys, path, "--message", "10")
    assert error(capsys)


@pytest.mark.parametrize("name", ["msgpack", "websockets"])
def test_a_missing_package_is_named(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    said = error(capsys, str(tiny_checkpoint))
    assert said == f"vla: {name} is not installed; run: pip install 'vla_policy[serve]'"
