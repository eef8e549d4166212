"""Whoever wants to do harm: a client that came before is served all the while, and the server's memory stays small."""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from vla_policy.server.serving import OPENING
from vla_policy.server.wire import pack

Observe = Callable[..., dict[str, Any]]
WAIT = 30.0
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, BINARY, CONTINUED, CLOSE, PING = 1, 2, 0, 8, 9


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, claimed: int | None = None) -> bytes:
    """A frame of WebSocket's, masked with zeros; `claimed` is the length that its header says."""
    size = len(data) if claimed is None else claimed
    head = bytes([opcode | 0x80 * fin])
    if size < 126:
        return head + bytes([0x80 | size]) + bytes(4) + data
    return head + b"\xff" + struct.pack(">Q", size) + bytes(4) + data


PATIENT = pytest.mark.parametrize("running", [600.0], indirect=True)  # no time-out may be what helps


@pytest.fixture
def running(serve: Callable[..., Any], request: pytest.FixtureRequest) -> Any:
    return serve(connections=8, stall=getattr(request, "param", 1.0))


@pytest.fixture
def dial(running: Any) -> Iterator[Callable[..., socket.socket]]:
    """Opens connections to the server, upgraded to WebSocket or not."""
    place, opened = urlsplit(running.address), []

    def open_one(*, upgraded: bool = True) -> socket.socket:
        made = socket.create_connection((place.hostname, place.port), timeout=WAIT)
        opened.append(made)
        if upgraded:
            made.sendall(UPGRADE)
            assert b"101" in made.recv(4096)
        return made

    yield open_one
    for one in opened:
        one.close()


def is_ended(one: socket.socket) -> bool:
    """Whether the server closes the connection, whatever it says before."""
    try:
        while one.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def is_open(one: socket.socket) -> bool:
    """Whether a connection on which nothing comes is still there, at once."""
    one.setblocking(False)
    try:
        return bool(one.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def send_much(one: socket.socket, data: bytes, megabytes: float = math.inf, patience: float = 5.0) -> bool:
    """Send some bytes over and over; whether the server took so much, or went on taking. It may end the connection, or
    stop reading.
    """
    one.settimeout(patience)
    many, end = data * (1 + (1 << 16) // len(data)), time.monotonic() + WAIT
    sent = 0
    try:
        while sent < megabytes * 2**20 and time.monotonic() < end:
            one.sendall(many)
            sent += len(many)
    except (ConnectionError, TimeoutError):
        return False
    finally:
        one.settimeout(WAIT)
    return True


def resident() -> int:
    """Bytes of memory that this process, in which the server is, has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff" * 4000,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000,
        b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 1000,
        b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        UPGRADE.replace(b"13", b"99"),
        UPGRADE.replace(b"AAAA", b"\xff\xff"),
    ],
    ids=range(8),
)
def test_what_is_no_handshake(running: Any, dial: Any, observe: Observe, data: bytes) -> None:
    one = dial(upgraded=False)
    one.sendall(data)
    assert "actions" in running.client().infer(observe(0))
    assert is_ended(one)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 5000,
        frame(3, b"reserved"),
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"hello"),
        frame(CONTINUED, b"of nothing"),
        frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"),
        frame(BINARY, b"", claimed=2**62),
        frame(BINARY, bytes(30_000)),
        frame(PING, b"x" * 200),
        frame(PING, fin=False),
        frame(CLOSE, b"\x00"),
        frame(CLOSE),
        b"\x82\x05hello",  # not masked
        b"\xf2\x80" + bytes(4),  # reserved bits
        frame(BINARY),
        frame(BINARY, b"\x91" * 10_000),
        frame(BINARY, b"\xdd\x00\x00\x10\x00" * 2000),
    ],
    ids=range(17),
)
def test_what_is_no_frame_or_no_message(running: Any, dial: Any, observe: Observe, data: bytes) -> None:
    one = dial()
    one.sendall(data)
    assert "actions" in running.client().infer(observe(0))
    assert is_ended(one)


def test_half_messages_that_break_off(running: Any, dial: Any, observe: Observe) -> None:
    good, data = running.client(), frame(BINARY, pack(observe(0)))
    for length in range(1, len(data), len(data) // 12):
        one = dial()
        one.sendall(data[:length])
        one.close()
    assert "actions" in good.infer(observe(0))


def test_who_asks_and_leaves(running: Any, dial: Any, observe: Observe) -> None:
    good, data = running.client(), frame(BINARY, pack(observe(0)))
    for _ in range(20):
        deadline = time.monotonic() + WAIT
        while running.server._connected > 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        one = dial()
        one.sendall(data)
        one.close()
    assert "actions" in good.infer(observe(0))


@PATIENT
@pytest.mark.parametrize("data", [b"", b"x"], ids=["empty", "small"])
def test_fragments_without_end(running: Any, dial: Any, observe: Observe, data: bytes) -> None:
    good, one, before = running.client(), dial(), resident()
    one.sendall(frame(BINARY, data, fin=False))
    send_much(one, frame(CONTINUED, data, fin=False), 8)
    assert "actions" in good.infer(observe(0))
    assert is_ended(one)
    assert resident() - before < 64 * 2**20


@PATIENT
def test_pings_whose_answers_nobody_reads(running: Any, dial: Any, observe: Observe) -> None:
    good, one, before = running.client(), dial(), resident()
    send_much(one, frame(PING, b"x" * 125), 24)
    assert "actions" in good.infer(observe(0))
    assert is_ended(one)
    assert resident() - before < 64 * 2**20


def test_observations_whose_answers_nobody_reads(running: Any, dial: Any, observe: Observe) -> None:
    """Such a client takes no ping in either, and is closed for that."""
    good, one, before = running.client(), dial(), resident()
    assert not send_much(one, frame(BINARY, pack({**observe(0), "act": False})))
    assert "actions" in good.infer(observe(0))
    assert resident() - before < 64 * 2**20


@PATIENT
def test_the_server_ends_all_the_same(running: Any, dial: Any) -> None:
    begun = time.monotonic()
    stuck = [dial(upgraded=False), dial(), dial()]
    stuck[1].sendall(frame(BINARY, b"half", claimed=1000))
    running.stop()
    assert all(is_ended(one) for one in stuck)
    assert time.monotonic() - begun < WAIT


@PATIENT
def test_a_thousand_connections(running: Any, dial: Any, observe: Observe) -> None:
    good, silent = running.client(), []
    for number in range(1000):
        one = dial(upgraded=False)
        if number % 2:
            with suppress(ConnectionError):  # it may have been turned away already
                one.sendall(UPGRADE)
        else:
            silent.append(one)
    assert "actions" in good.infer(observe(0))
    assert running.server._connected <= 8
    deadline = time.monotonic() + WAIT
    while sum(map(is_open, silent)) > OPENING + 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sum(map(is_open, silent)) <= OPENING + 8
