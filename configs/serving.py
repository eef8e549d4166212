"""Configuration of the policy server: where it listens, how it computes, and what it allows its clients."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from configs.checks import check_host, check_kinds, check_least, check_most


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How a policy is served.

    Args:
        host: address to listen on. The default is this machine alone: whoever can connect can use the policy.
        port: port to listen on; 0 takes any that is free.
        batch: decisions computed together at most, a power of 2.
        pad: always compute a full batch, so that an action does not depend on how many others are there. Without it a
            lone client is answered sooner, and actions may differ in the sixth decimal place.
        threads: threads of the computation. 1 gives the arithmetic of evaluations.
        newest: decide on a client's newest observation alone. Older ones that still wait become part of its history,
            and are not answered.
        connections: clients at the same time; others are turned away.
        message: largest message in bytes; 0 takes what an observation of the policy needs.
        idle: seconds without a whole message after which a client is closed.
        stall: seconds that a client has for the opening handshake, for taking an answer in, and for a ping.
        seconds: serve for so long and end; 0 serves until it is interrupted.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    batch: int = 4
    pad: bool = True
    threads: int = 1
    newest: bool = False
    connections: int = 256
    message: int = 0
    idle: float = 600.0
    stall: float = 20.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        check_kinds("", self)
        check_least("", self, port=0, batch=1, threads=1, connections=1, message=0)
        check_most("", self, port=65535, batch=1024, threads=1024)
        check_host(self.host)
        if self.batch & (self.batch - 1):
            raise ValueError(f"batch {self.batch} must be a power of 2, such as 4")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{item.name} {value} must be a number of seconds")
        for name in ("idle", "stall"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0 seconds")
