"""A server and its clients: the protocol as openpi speaks it, many at once, and what goes wrong."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from configs.serving import ServeConfig
from vla_policy.checkpoint import Checkpoint
from vla_policy.server.batcher import DecisionError, stack_windows
from vla_policy.server.client import RemoteError
from vla_policy.server.serving import PolicyServer
from vla_policy.server.session import Session, Window
from vla_policy.server.wire import pack, unpack

Observe = Callable[..., dict[str, Any]]
Serve = Callable[..., Any]
WAIT = 30.0
TOLERANCE = 1e-5  # of an action without padding


def open_socket(address: str, **options: Any) -> ClientConnection:
    made = connect(address, compression=None, proxy=None, open_timeout=WAIT, **options)
    made.recv(WAIT)  # who the policy is
    return made


def said_at_the_end(client: ClientConnection) -> tuple[str, int]:
    """The text frame before the connection is closed, and the code."""
    while isinstance(text := client.recv(WAIT), bytes):
        assert "actions" in unpack(text)  # an answer to what came before
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(WAIT)
    assert caught.value.rcvd is not None
    return text, caught.value.rcvd.code


def get(address: str, path: str, **headers: str) -> tuple[int, str]:
    place = urlsplit(address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=WAIT)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class TestProtocol:
    def test_a_sequence_written_out_by_hand(self, serve: Serve, served: Checkpoint, observe: Observe) -> None:
        """As openpi's client does it, with nothing of ours: bytes in, bytes out."""

        def encode(value: np.ndarray) -> dict[bytes, Any]:
            fields = (True, value.tobytes(), value.dtype.str, value.shape)
            return dict(zip((b"__ndarray__", b"data", b"dtype", b"shape"), fields, strict=True))

        def decode(found: dict[Any, Any]) -> Any:
            if b"__ndarray__" not in found:
                return found
            return np.ndarray(buffer=found[b"data"], dtype=np.dtype(found[b"dtype"]), shape=found[b"shape"])

        seen = observe(3)
        with connect(serve().address, compression=None, max_size=None, proxy=None) as client:
            metadata = msgpack.unpackb(client.recv(WAIT), object_hook=decode)
            assert metadata["cameras"] == ["front"]
            assert metadata["picture"] == [32, 32, 3]
            assert metadata["action_names"] == list(served.purpose.action_names)
            for step in range(2):
                client.send(msgpack.packb(seen, default=encode))
                answer = msgpack.unpackb(client.recv(WAIT), object_hook=decode)
                assert answer["step"] == step
                assert answer["actions"].shape == (metadata["chunk"], len(metadata["action_names"]))
                assert answer["actions"].dtype == np.float32
                assert np.abs(answer["actions"]).max() <= 1
                assert answer["server_timing"]["infer_ms"] > 0
            client.send(msgpack.packb({**seen, "agent_pos": seen["agent_pos"][:2]}, default=encode))
            text, code = said_at_the_end(client)
            assert text.startswith("agent_pos: got (2,) float32, expected (12,) float32")
            assert code == 1008

    def test_an_observation_without_a_question_is_kept(self, serve: Serve, observe: Observe) -> None:
        client = serve().client()
        assert client.infer({**observe(0), "act": False}) == {"step": 0}
        assert client.infer(observe(1))["step"] == 1

    def test_unknown_words_are_said_once(self, serve: Serve, observe: Observe) -> None:
        client = serve().client()
        answers = [client.infer(observe(i, prompt="follow the turquoise ball")) for i in range(2)]
        assert [answer.get("notice") for answer in answers] == ["the policy does not know 'turquoise'", None]

    def test_health(self, serve: Serve) -> None:
        assert get(serve().address, "/healthz") == (200, "OK\n")

    def test_browsers_are_turned_away(self, serve: Serve) -> None:
        with pytest.raises(InvalidStatus, match="403"):
            open_socket(serve().address, origin="http://evil.example")


def alone(checkpoint: Checkpoint, seen: dict[str, Any], rows: int) -> np.ndarray:
    """What the policy itself answers to an episode's first observation, in a batch of so many rows."""
    session = Session(checkpoint)
    session.take(seen)
    return checkpoint.policy.act(stack_windows([session.window()], rows)).action[0].numpy()


class TestTogether:
    def test_what_else_is_in_a_batch_makes_no_difference_to_the_bit(self, served: Checkpoint, observe: Observe) -> None:
        def window(seed: int) -> Window:
            session = Session(served)
            session.take(observe(seed))
            return session.window()

        together = [stack_windows([window(0), *others], 4) for others in ([], [window(1)], [window(2), window(3)])]
        first, *others = (served.policy.act(batch).action[0].numpy() for batch in together)
        assert all(np.array_equal(first, other) for other in others)

    @pytest.mark.parametrize("pad", [True, False])
    def test_who_else_is_there_makes_no_difference(
        self, serve: Serve, served: Checkpoint, observe: Observe, pad: bool
    ) -> None:
        running = serve(batch=4, pad=pad)
        clients = [running.client() for _ in range(5)]
        sizes = set()
        for again in range(2):
            messages = [observe(20 * again + i, reset=True) for i in range(len(clients))]
            for client, message in zip(clients, messages, strict=True):
                client.send(message)
            for client, message in zip(clients, messages, strict=True):
                answer = client.receive()
                sizes.add(answer["server_timing"]["batch"])
                expected = alone(served, message, 4 if pad else 1)
                if pad:
                    np.testing.assert_allclose(answer["actions"], expected, atol=1e-6)
                else:
                    assert np.abs(answer["actions"] - expected).max() < TOLERANCE
        assert max(sizes) > 1  # some were decided together

    @pytest.mark.parametrize("newest", [False, True])
    def test_a_bad_client_disturbs_no_other(
        self, serve: Serve, served: Checkpoint, observe: Observe, newest: bool
    ) -> None:
        running = serve(newest=newest)
        good = running.client()
        bad: list[bytes | str] = [
            b"",
            b"garbage",
            "text",
            pack({}),
            pack({**observe(0), "reset": True, "prompt": None}),
            pack({**observe(0), "agent_pos": np.full(12, np.nan, np.float32)}),
        ]
        for number, data in enumerate(bad):
            with open_socket(running.address) as client:
                client.send(pack(observe(0)))
                client.send(data)
                good.send(observe(number, reset=True))
                text, code = said_at_the_end(client)
                assert code == 1008
                assert "\n" not in text
            np.testing.assert_allclose(good.receive()["actions"], alone(served, observe(number), 4), atol=1e-6)
        assert running.server.refused == len(bad)

    def test_huge_proprioception_spoils_no_other_row(self, serve: Serve, served: Checkpoint, observe: Observe) -> None:
        running = serve()
        bad, good = running.client(), running.client()
        for number in range(2):
            bad.send(observe(0, reset=True, agent_pos=np.full(12, 3e38, np.float32)))
            good.send(observe(number, reset=True))
            np.testing.assert_allclose(good.receive()["actions"], alone(served, observe(number), 4), atol=1e-6)
            try:
                bad.receive()
            except RemoteError as error:
                assert "not finite" in str(error)  # noqa: PT017 - or they are finite, as the head may cut them
                bad = running.client()

    def test_a_failing_forward_pass_is_said_and_the_next_one_goes_well(
        self, serve: Serve, served: Checkpoint, observe: Observe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running = serve()
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> Any:
                raise RuntimeError("no memory\nTraceback")

            patch.setattr(served.policy, "act", fail)
            with open_socket(running.address) as client:
                client.send(pack(observe(0)))
                text, code = said_at_the_end(client)
        assert (text, code) == ("the policy could not decide: no memory Traceback", 1011)
        assert "actions" in running.client().infer(observe(0))


class TestNewest:
    def test_older_observations_are_history_and_are_not_answered(
        self, serve: Serve, served: Checkpoint, observe: Observe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        act = served.policy.act

        def slow(observation: Any) -> Any:
            time.sleep(0.3)
            return act(observation)

        monkeypatch.setattr(served.policy, "act", slow)
        client = serve(newest=True).client()
        assert client.metadata["newest"]
        messages = [observe(i, prompt="follow the red ball") for i in range(12)]
        for message in messages:
            client.send(message)
        answers = [client.receive()]
        while answers[-1]["step"] < len(messages) - 1:
            answers.append(client.receive())
        assert len(answers) < len(messages) / 2
        session = Session(served)
        for message in messages:
            session.take(message)
        expected = act(stack_windows([session.window()], 4)).action[0].numpy()
        np.testing.assert_allclose(answers[-1]["actions"], expected, atol=1e-6)

    def test_without_it_every_observation_is_answered(self, serve: Serve, observe: Observe) -> None:
        client = serve().client()
        for i in range(6):
            client.send(observe(i))
        assert [client.receive()["step"] for _ in range(6)] == list(range(6))


class TestLimits:
    def test_too_many_clients(self, serve: Serve, observe: Observe) -> None:
        running = serve(connections=2)
        first, second = running.client(), running.client()
        with pytest.raises(RemoteError, match="503"):
            running.client()
        assert get(running.address, "/healthz")[0] == 200
        assert "actions" in second.infer(observe(0))
        first.close()
        deadline = time.monotonic() + WAIT
        while running.server._connected > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "actions" in running.client().infer(observe(0))

    def test_a_message_that_is_too_large(self, serve: Serve, observe: Observe) -> None:
        running = serve()
        with open_socket(running.address) as client:
            client.send(bytes(1_000_000))
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(WAIT)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        assert "actions" in running.client().infer(observe(0))

    def test_silence_ends_a_connection(self, serve: Serve) -> None:
        running = serve(idle=0.2)
        with open_socket(running.address) as client, pytest.raises(ConnectionClosed) as caught:
            client.recv(WAIT)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "no message for 0.2 s, or none taken in")

    def test_a_handshake_that_never_ends(self, serve: Serve, observe: Observe) -> None:
        running = serve(stall=0.5)
        place = urlsplit(running.address)
        with socket.create_connection((place.hostname, place.port), timeout=WAIT) as stuck:
            stuck.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            assert "actions" in running.client().infer(observe(0))
            assert stuck.recv(1) == b""

    def test_the_message_must_hold_an_observation(self, served: Checkpoint) -> None:
        with pytest.raises(ValueError, match="message 100 is below the"):
            PolicyServer(served, "tiny", ServeConfig(message=100))


class TestEnd:
    def test_clients_are_told(self, serve: Serve, observe: Observe) -> None:
        running = serve()
        with open_socket(running.address) as client:
            client.send(pack(observe(0)))
            client.recv(WAIT)
            running.stop()
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(WAIT)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1001, "the server is ending")

    def test_what_waits_is_not_decided_any_more(self, served: Checkpoint) -> None:
        import asyncio

        from vla_policy.server.batcher import Batcher

        async def ask() -> None:
            batcher = Batcher(served, batch=1, pad=True, threads=1)
            waiting = asyncio.create_task(batcher.decide(Session(served).window))
            await asyncio.sleep(0)
            batcher.end()
            for asked in (waiting, batcher.decide(Session(served).window)):
                with pytest.raises(DecisionError, match="ending"):
                    await asked

        asyncio.run(ask())

    def test_a_port_in_use(self, serve: Serve, served: Checkpoint) -> None:
        port = urlsplit(serve().address).port
        with pytest.raises(ValueError, match=rf"127.0.0.1:{port}: the port is in use; choose another with --port"):
            _run(PolicyServer(served, "tiny", ServeConfig(port=port)))

    @pytest.mark.parametrize(
        ("host", "said"),
        [("no.such.host.invalid", "is not known"), ("192.0.2.1", "not an address of this machine")],
    )
    def test_a_wrong_host(self, served: Checkpoint, host: str, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            _run(PolicyServer(served, "tiny", ServeConfig(host=host, port=0)))


def _run(server: PolicyServer) -> None:
    import asyncio

    asyncio.run(server.run(lambda _: None, asyncio.Event()))
