"""The server: connections, limits, time-outs and the end.

A connection is an episode at a time: the server says what the policy is, then answers every observation, in its turn
or, with `newest`, the newest alone. What a client does wrong is told to it in a text frame, and ends its connection.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket as sockets
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State

from configs.serving import ServeConfig
from vla_policy.checkpoint import Checkpoint
from vla_policy.server.batcher import ENDING, Batcher, Decision, DecisionError
from vla_policy.server.session import LONGEST_PROMPT, Session, Taken, Window
from vla_policy.server.wire import pack, unpack

PROTOCOL = 1  # to be raised when messages change their meaning
HEALTH = "/healthz"
ROOM = 4096  # bytes of a message beside its arrays and its instruction
QUEUE = 4  # frames that wait for a connection's turn; then no more are read
MOST_PARTS = 1024  # fragments of a message; the library counts their bytes, and an empty one has none
MOST_UNREAD = 1 << 20  # bytes of answers and pongs that a client does not take in
OPENING = 128  # connections that are not clients yet, or ask for the health
MOST_SAID = 20  # lines about what nobody else can be told


class PolicyServer:
    """Serves one policy.

    Args:
        checkpoint: the policy. name: what clients are told that it is called.
        config: where, and with which limits.

    Raises:
        ValueError: an observation of this policy is larger than the limit.

    `clients` have been connected so far, `refused` of them for what they sent, and `decisions` were made.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, config: ServeConfig) -> None:
        self.config, self._checkpoint = config, checkpoint
        needed = largest_message(checkpoint)
        self._message = config.message or needed
        if self._message < needed:
            raise ValueError(f"message {self._message} is below the {needed} bytes that an observation may have")
        self._metadata = pack(describe(checkpoint, name, config))
        self._batcher = Batcher(checkpoint, batch=config.batch, pad=config.pad, threads=config.threads)
        self._connected = self.clients = self.refused = 0

    @property
    def decisions(self) -> int:
        return self._batcher.decisions

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until told to stop; then clients are told goodbye and what is being computed is finished.

        Args:
            ready: called with the address once clients can connect.

        Raises:
            ValueError: the address cannot be listened on; the message says why.
        """
        asyncio.get_running_loop().set_exception_handler(_Told())
        computing = asyncio.create_task(self._batcher.run())
        try:
            server = await self._listen()
            try:
                ready(_address(server))
                await stop.wait()
            finally:
                server.close(reason=ENDING)
                self._batcher.end()
                for connection in list(server.handlers):
                    if connection.state is State.CONNECTING:  # the library would wait for its handshake
                        connection.transport.abort()
                await server.wait_closed()
        finally:
            computing.cancel()
            await asyncio.wait([computing])

    async def _listen(self) -> Server:
        config = self.config
        try:
            return await serve(
                self._client,
                config.host,
                config.port,
                origins=[None],  # no browser: any page that somebody opens could otherwise move the robot
                compression=None,
                process_request=self._admit,
                open_timeout=config.stall,
                ping_interval=config.stall,
                ping_timeout=config.stall,
                close_timeout=min(config.stall, 5.0),
                max_size=self._message,
                max_queue=QUEUE,
                server_header=None,
                logger=_silent(),
                create_connection=_guarded(config.connections + OPENING),
            )
        except sockets.gaierror as error:
            raise ValueError(
                f"host {config.host!r} is not known ({error.strerror}); name an address of this machine, such as "
                "127.0.0.1"
            ) from None
        except OSError as error:
            raise ValueError(_why_not(config, error)) from None

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers questions about the server's health, and turns away who is too many."""
        if request.path == HEALTH:
            return connection.respond(HTTPStatus.OK, "OK\n")
        if self._connected >= self.config.connections:
            full = f"{self._connected} clients are connected, and connections is {self.config.connections}\n"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, full)
        return None

    async def _client(self, socket: ServerConnection) -> None:
        if self._connected >= self.config.connections:  # several were admitted at once
            await socket.close(CloseCode.TRY_AGAIN_LATER, "too many clients")
            return
        self._connected += 1
        self.clients += 1
        try:
            await self._send(socket, self._metadata)
            session = Session(self._checkpoint)
            await (self._newest(socket, session) if self.config.newest else self._in_turn(socket, session))
        except ConnectionClosed:
            pass
        except TimeoutError:
            await socket.close(CloseCode.POLICY_VIOLATION, f"no message for {self.config.idle:g} s, or none taken in")
        except ValueError as error:
            self.refused += 1
            await self._refuse(socket, str(error), CloseCode.POLICY_VIOLATION)
        except DecisionError as error:
            await self._refuse(socket, str(error), CloseCode.INTERNAL_ERROR)
        finally:
            self._connected -= 1

    async def _in_turn(self, socket: ServerConnection, session: Session) -> None:
        """Answer every observation before the next one is read."""
        while True:
            taken = await self._take(socket, session)
            decision = await self._batcher.decide(session.window) if taken.act else None
            await self._send(socket, _answer(session, taken.step, decision))

    async def _newest(self, socket: ServerConnection, session: Session) -> None:
        """Read on while the policy decides, and decide on the newest observation that is there when it begins to."""
        news = asyncio.Event()

        def window() -> Window:
            news.clear()
            return session.window()

        async def listen() -> None:
            while True:
                taken = await self._take(socket, session)
                if taken.act:
                    news.set()
                else:
                    await self._send(socket, _answer(session, taken.step, None))

        async def answer() -> None:
            while True:
                await news.wait()
                decision = await self._batcher.decide(window)
                await self._send(socket, _answer(session, decision.step, decision))

        both = [asyncio.create_task(listen()), asyncio.create_task(answer())]
        try:
            await asyncio.gather(*both)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)

    async def _take(self, socket: ServerConnection, session: Session) -> Taken:
        parts: list[bytes] = []
        async with asyncio.timeout(self.config.idle):
            async for part in socket.recv_streaming():
                if isinstance(part, str):
                    raise ValueError("got a text frame, expected binary frames with msgpack")
                if len(parts) == MOST_PARTS:
                    raise ValueError(f"got a message in more than {MOST_PARTS} fragments, expected one or a few")
                parts.append(part)
        return session.take(unpack(b"".join(parts)))

    async def _send(self, socket: ServerConnection, data: bytes | str) -> None:
        async with asyncio.timeout(self.config.stall):
            await socket.send(data)

    async def _refuse(self, socket: ServerConnection, text: str, code: CloseCode) -> None:
        with suppress(ConnectionClosed, TimeoutError):
            await self._send(socket, " ".join(text.split()))
            await socket.close(code, "see the text frame before")


def describe(checkpoint: Checkpoint, name: str, config: ServeConfig) -> dict[str, Any]:
    """What a client is told on connecting: what to send, what it gets, and how it is treated."""
    policy, purpose = checkpoint.policy, checkpoint.purpose
    side = policy.shapes.size
    return {
        "server": "vla_policy",
        "protocol": PROTOCOL,
        "policy": name,
        "tasks": list(purpose.tasks),
        "cameras": list(policy.config.cameras),
        "picture": [side, side, 3],
        "agent_pos_names": list(purpose.agent_pos_names),
        "action_names": list(purpose.action_names),
        "action_range": [-1.0, 1.0],
        "control_hz": purpose.control_hz,
        "chunk": policy.config.head.chunk,
        "frame_ages": list(policy.config.ages),
        "newest": config.newest,
    }


def largest_message(checkpoint: Checkpoint) -> int:
    """Bytes that the largest observation of a policy may have."""
    shapes = checkpoint.policy.shapes
    return shapes.cameras * shapes.size**2 * 3 + 8 * shapes.proprioception + 4 * LONGEST_PROMPT + ROOM


def _answer(session: Session, step: int, decision: Decision | None) -> bytes:
    answer: dict[str, Any] = {"step": step}
    if decision is not None:
        answer["actions"] = decision.actions
        timing = {"wait_ms": 1e3 * decision.wait, "infer_ms": 1e3 * decision.infer, "batch": decision.rows}
        answer["server_timing"] = timing
    if session.notice:
        answer["notice"], session.notice = session.notice, ""
    return pack(answer)


def _address(server: Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


def _why_not(config: ServeConfig, error: OSError) -> str:
    """Why an address cannot be listened on, and what to do."""
    where = f"{config.host}:{config.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where}: the port is in use; choose another with --port, or 0 for any that is free"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: not an address of this machine; choose one with --host, such as 127.0.0.1"
    if error.errno == errno.EACCES:
        return f"{where}: not allowed to listen there; choose a --port above 1023"
    return f"{where}: cannot be listened on ({error.strerror})"


def _silent() -> logging.Logger:
    """For what the library would say, with tracebacks, about clients that break off or send garbage."""
    return logging.Logger("vla_policy.server", logging.CRITICAL + 1)


def _guarded(most: int) -> type[ServerConnection]:
    """Connections that are broken off where the library would wait: one that is too many, of those that do not talk
    yet, too, and one that makes the server write and does not read.
    """

    class Guarded(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            if len(self.server.handlers) > most:
                self.transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.transport.get_write_buffer_size() > MOST_UNREAD:
                self.transport.abort()

    return Guarded


class _Told:
    """What the event loop cannot tell anybody else, such as a lack of file descriptors: one line, each once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        text = " ".join(f"{context.get('message', '')}: {context.get('exception', '')}".split())
        if text not in self._said and len(self._said) < MOST_SAID:
            self._said.add(text)
            print(f"vla: {text}", file=sys.stderr, flush=True)
