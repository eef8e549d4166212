"""`vla serve`."""

from __future__ import annotations

import asyncio
import importlib
import signal
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from configs.decode import decode
from configs.options import parse, plain_parser
from configs.serving import ServeConfig

if TYPE_CHECKING:
    from vla_policy.server.serving import PolicyServer

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(arguments: list[str]) -> int:
    """Serve a policy until interrupted."""
    parser = plain_parser(
        "serve", "Speaks WebSocket and msgpack as openpi's clients do; see docs/serving.md", tasks=False
    )
    parser.add_argument("checkpoint", type=str, help="checkpoint folder, or the name of a policy that ships")
    parser.add_class_arguments(ServeConfig, as_group=True, fail_untyped=True)
    parsed = parse(parser, arguments)
    config = decode(ServeConfig, {item.name: getattr(parsed, item.name) for item in fields(ServeConfig)})
    require_packages()
    from vla_policy.allocator import keep_freed_memory
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint
    from vla_policy.server.serving import PolicyServer

    keep_freed_memory()
    path = resolve_checkpoint(parsed.checkpoint)
    server = PolicyServer(load_checkpoint(path), Path(parsed.checkpoint).name, config)
    asyncio.run(_until_told(server, parsed.checkpoint))
    print(f"ended after {server.decisions} decisions for {server.clients} clients, {server.refused} of them refused")
    return 0


def require_packages() -> None:
    """Raises ValueError where a package that only the server and its clients need is missing."""
    for name in ("msgpack", "websockets"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            raise ValueError(f"{name} is not installed; run: pip install 'vla_policy[serve]'") from None


async def _until_told(server: PolicyServer, name: str) -> None:
    """Serve until a signal comes, or the time is over."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            loop.add_signal_handler(number, stop.set)

    def ready(address: str) -> None:
        print(f"{name} on {address}, health on {address.replace('ws', 'http', 1)}/healthz; Ctrl-C ends it", flush=True)
        if server.config.seconds:
            loop.call_later(server.config.seconds, stop.set)

    await server.run(ready, stop)
