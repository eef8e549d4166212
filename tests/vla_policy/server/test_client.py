"""The client, and the actor that acts as the policy itself would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as server

from configs.evaluation import RunnerConfig
from vla_policy.checkpoint import Checkpoint
from vla_policy.runner import PolicyActor, PolicyRunner
from vla_policy.server.client import RemoteActor, RemoteError, RemotePolicy
from vla_policy.server.wire import pack

Observe = Callable[..., dict[str, Any]]
Serve = Callable[..., Any]


class Half:
    def to_task(self, unit: np.ndarray) -> np.ndarray:
        return unit / 2


@dataclass
class FakeWorld:
    """What actors read of a world."""

    observation: dict[str, Any]
    instruction: str
    action_names: tuple[str, ...]
    scale: Half


@pytest.mark.parametrize("execute", [1, 3])
def test_the_actor_acts_as_the_policy_does(serve: Serve, served: Checkpoint, observe: Observe, execute: int) -> None:
    running = serve(batch=2)
    remote = RemoteActor([running.client() for _ in range(3)], execute)
    local = [PolicyActor(PolicyRunner(served, 2, RunnerConfig(execute=execute))) for _ in range(2)]
    names = served.purpose.action_names[::-1]
    worlds = [FakeWorld({}, text, names, Half()) for text in ("follow the red ball", "track the blue cube")]
    for episode in range(2):
        remote.reset([worlds[0], None, worlds[1]])
        for actor, world in zip(local, worlds, strict=True):
            actor.reset([world, None])
        for step in range(9):
            for number, world in enumerate(worlds):
                world.observation = observe(100 * episode + 10 * step + number, prompt=None)
            if step == 6:  # the first one's episode is over
                worlds_now: list[FakeWorld | None] = [None, None, worlds[1]]
            else:
                worlds_now = [None if step > 6 else worlds[0], None, worlds[1]]
            got = remote.act(worlds_now)
            expected = [actor.act([world, None])[0] for actor, world in zip(local, worlds, strict=True)]
            assert (got[0] is None) == (step >= 6)
            if got[0] is not None:
                assert np.array_equal(got[0], expected[0])
            assert got[1] is None
            assert np.array_equal(got[2], expected[1])


def test_the_interface_is_the_policys(serve: Serve, served: Checkpoint) -> None:
    assert serve().client().interface == served.interface


def test_the_actor_executes_no_more_than_is_predicted(serve: Serve) -> None:
    client = serve().client()
    with pytest.raises(ValueError, match="execute 99 must be from 1 to"):
        RemoteActor([client], 99)


def test_a_refusal_is_one_line(serve: Serve, observe: Observe) -> None:
    client = serve().client()
    with pytest.raises(RemoteError, match=r"ws://127.0.0.1:\d+: prompt: got nothing"):
        client.infer(observe(0, prompt=None))
    with pytest.raises(RemoteError, match="the connection is closed"):
        client.infer(observe(0))


@pytest.mark.parametrize(
    "said",
    [pack([1]), pack({"server": "other"}), b"\xc1", b"\x91" * 2000, "no"],
    ids=["list", "other", "none", "deep", "text"],
)
def test_another_server_is_one_line(said: bytes | str) -> None:
    def answer(connection: ServerConnection) -> None:
        connection.send(said)
        for _ in connection:
            pass

    with server(answer, "127.0.0.1", 0) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        port = other.socket.getsockname()[1]
        with pytest.raises(RemoteError, match=r"ws://127.0.0.1:\d+: (not a server of|answers what is not|no)"):
            RemotePolicy(f"ws://127.0.0.1:{port}", timeout=5)
        other.shutdown()
        thread.join()


@pytest.mark.parametrize("address", ["ws://127.0.0.1:{port}", "http://127.0.0.1:{port}", "", "127.0.0.1"])
def test_no_server_is_one_line(address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RemoteError, match=r"no policy server answers .*; start one with `vla serve`"):
        RemotePolicy(address.format(port=port), timeout=5)
