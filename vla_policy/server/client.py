"""The other side of a served policy: a client, and an actor for `envs.rollout`. Neither needs torch.

A actions, S chunk steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import connect

from configs.interface import RobotInterface
from vla_policy.server.wire import WireError, pack, unpack

if TYPE_CHECKING:
    from vla_policy.runner import Robot

LONGEST = 100_000  # entries of a list from a server, which names all tasks and joints of its policy


class RemoteError(OSError):
    """A server that cannot be reached, or that refused what it was sent; the message says which, and why."""


class RemotePolicy:
    """A connection to a policy's server, which is one episode at a time.

    Args:
        address: such as "ws://127.0.0.1:8000".
        timeout: seconds to wait for the connection and for every answer.

    Raises:
        RemoteError: no server of this protocol answers there.

    `metadata` is what the server says of its policy; see docs/serving.md.
    """

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        self.address, self._timeout = address, timeout
        try:
            self._socket = connect(address, compression=None, proxy=None, open_timeout=timeout, max_size=None)
        except (OSError, InvalidURI, InvalidHandshake) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RemoteError(f"{address}: no policy server answers ({reason}); start one with `vla serve`") from None
        self.metadata: dict[str, Any] = {}
        try:
            said = self.receive()
        except BaseException:
            self.close()
            raise
        if isinstance(said, dict) and said.get("server") == "vla_policy":
            self.metadata = said
        else:
            self.close()
            raise RemoteError(f"{address}: not a server of `vla serve`, whose observations this client sends")

    @property
    def interface(self) -> RobotInterface:
        """The robot that the policy sees, feels and moves."""
        names = {kind: tuple(self.metadata[kind]) for kind in ("action_names", "agent_pos_names", "cameras")}
        return RobotInterface(**names, control_hz=self.metadata["control_hz"])

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to an observation, with `actions` (S, A) in [-1, 1].

        Raises:
            RemoteError: the server refused it, does not answer in time, or is gone.
        """
        self.send(observation)
        return self.receive()

    def send(self, observation: dict[str, Any]) -> None:
        """The first half of `infer`: several connections can send before the first one's answer is waited for."""
        try:
            self._socket.send(pack(observation))
        except ConnectionClosed:
            self.receive()  # why: it may have said so before it closed

    def receive(self) -> Any:
        """The second half of `infer`."""
        try:
            answer = self._socket.recv(self._timeout)
        except TimeoutError:
            raise RemoteError(f"{self.address}: no answer for {self._timeout:g} s") from None
        except ConnectionClosed as error:
            raise RemoteError(f"{self.address}: the connection is closed ({error})") from None
        if isinstance(answer, str):
            raise RemoteError(f"{self.address}: {answer}")
        try:
            return unpack(answer, LONGEST)
        except WireError as error:
            raise RemoteError(f"{self.address}: answers what is {error}") from None

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteActor:
    """A served policy as an actor of `envs.rollout`: a connection per row, and all rows are decided for together.

    Args:
        policies: a connection per row.
        execute: control steps executed of a chunk before the policy is asked again.

    Raises:
        ValueError: the policy does not predict so many steps.
    """

    def __init__(self, policies: Sequence[RemotePolicy], execute: int = 2) -> None:
        self._policies, self._execute = policies, execute
        about = policies[0].metadata
        if not 1 <= execute <= about["chunk"]:
            raise ValueError(f"execute {execute} must be from 1 to {about['chunk']}, the policy's chunk")
        self._cameras, self._names = about["cameras"], about["action_names"]
        self._ahead = about["frame_ages"]

    def reset(self, worlds: Sequence[Robot | None]) -> None:
        self._step = 0
        self._chunks: dict[int, np.ndarray] = {}
        self._order = [[] if w is None else [self._names.index(name) for name in w.action_names] for w in worlds]

    def act(self, worlds: Sequence[Robot | None]) -> list[np.ndarray | None]:
        place = self._step % self._execute
        acting = [(row, world) for row, world in enumerate(worlds) if world is not None]
        # Pictures may be drawn when they are looked at: none is that no decision will need.
        if self._step == 0 or any((self._step + steps) % self._execute == 0 for steps in self._ahead):
            for row, world in acting:
                self._policies[row].send(self._observation(world, act=place == 0))
            answers = {row: self._policies[row].receive() for row, _ in acting}
            if place == 0:
                self._chunks = {row: answer["actions"] for row, answer in answers.items()}
        self._step += 1
        actions: list[np.ndarray | None] = [None] * len(worlds)
        for row, world in acting:
            actions[row] = world.scale.to_task(self._chunks[row][place, self._order[row]])
        return actions

    def _observation(self, world: Robot, *, act: bool) -> dict[str, Any]:
        seen = world.observation
        message = {
            "pixels": {name: seen["pixels"][name] for name in self._cameras},
            "agent_pos": seen["agent_pos"],
            "step": self._step,
            "act": act,
        }
        begins = {"reset": True, "prompt": world.instruction} if self._step == 0 else {}
        return {**message, **begins}
