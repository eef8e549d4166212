"""Serves the page: a session for every tab that opens, and its end when the tab closes."""

from __future__ import annotations

import contextlib
import socket
import warnings
from types import TracebackType

import viser

from configs.play import PlayConfig
from eval.play.page import full_page
from eval.play.policies import Policies
from eval.play.session import Session
from eval.report.overlay import ACTION

ENDING_S = 10.0  # seconds that worlds may take to free what they hold


class PlayServer:
    """The page's server. It listens while it is open, and closes its worlds with itself.

    Args:
        policies: who can act. config: how it is served.
        task, who, seed, words: what every world begins with; see `Session`.

    Raises:
        ValueError: the address cannot be listened at.
    """

    def __init__(
        self, policies: Policies, config: PlayConfig, *, task: str, who: str, seed: int = 0, words: str = ""
    ) -> None:
        self._policies, self._config = policies, config
        self._begin = {"task": task, "who": who, "seed": seed, "words": words}
        self.sessions: dict[int, Session] = {}
        check_free(config.host, config.port)
        # A world may be sending at the moment in which its tab is closed.
        warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
        self._server = viser.ViserServer(host=config.host, port=config.port, label="vla play", verbose=False)
        if config.port and self._server.get_port() != config.port:  # somebody took it meanwhile
            self._server.stop()
            check_free(config.host, config.port)
        self._server.gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, brand_color=ACTION, control_layout="floating"
        )
        self._server.on_client_connect(self._open)
        self._server.on_client_disconnect(self._close)

    @property
    def address(self) -> str:
        return f"http://{self._config.host}:{self._server.get_port()}"

    def close(self) -> None:
        """Ends all worlds and stops listening."""
        for session in list(self.sessions.values()):
            session.close()
        for session in list(self.sessions.values()):
            session.join(ENDING_S)
        self._server.stop()

    def __enter__(self) -> PlayServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # In the server's event loop, in the order in which tabs come and go: nothing here takes time.

    async def _open(self, client: viser.ClientHandle) -> None:
        if sum(session.is_alive() for session in self.sessions.values()) >= self._config.worlds:
            full_page(client, self._config.worlds)
            return
        _wake_safely(client)
        session = Session(client, self._policies, self._config, **self._begin)  # type: ignore[arg-type]
        self.sessions[client.client_id] = session
        session.start()

    async def _close(self, client: viser.ClientHandle) -> None:
        session = self.sessions.pop(client.client_id, None)
        if session is not None:
            session.close()


def _wake_safely(client: viser.ClientHandle) -> None:
    """Let a world's thread send to its tab without failing once in a while.

    viser 1.1.1 wakes the task that sends by setting an asyncio event from whichever thread has a message, and does so
    again in the event loop. If the task wakes up at that very moment, the first call raises "deque mutated during
    iteration", in the middle of whatever is being sent; the message is queued by then, and the task awake.
    """
    event = client._websock_connection.get_message_buffer().message_event
    wake = event.set

    def wake_safely() -> None:
        with contextlib.suppress(RuntimeError):
            wake()

    event.set = wake_safely  # type: ignore[method-assign]


def check_free(host: str, port: int) -> None:
    """Raises ValueError if nobody can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise ValueError(
            f"cannot listen at {host}:{port}: {said}; choose another --host or --port, or --port 0 for a free one"
        ) from None
