"""Settings of a server that cannot be meant are refused."""

from __future__ import annotations

from typing import Any

import pytest

from configs.serving import ServeConfig


def test_a_server_is_for_this_machine_alone() -> None:
    assert ServeConfig().host == "127.0.0.1"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": " "}, "host ' ' must be an address"),
        ({"host": "a\x00b"}, "must be an address"),
        ({"port": -1}, "port -1 must be at least 0"),
        ({"port": 65536}, "port 65536 must be at most 65535"),
        ({"port": "8000"}, "port is '8000', expected a whole number"),
        ({"batch": 0}, "batch 0 must be at least 1"),
        ({"batch": 6}, "batch 6 must be a power of 2"),
        ({"batch": 2**32}, "batch 4294967296 must be at most 1024"),
        ({"threads": 10**6}, "threads 1000000 must be at most 1024"),
        ({"threads": 0}, "threads 0 must be at least 1"),
        ({"connections": 0}, "connections 0 must be at least 1"),
        ({"message": -1}, "message -1 must be at least 0"),
        ({"idle": 0.0}, "idle 0.0 must be above 0 seconds"),
        ({"stall": -1.0}, "stall -1.0 must be a number of seconds"),
        ({"stall": float("inf")}, "stall is inf, expected a finite number"),
        ({"seconds": float("nan")}, "seconds is nan, expected a finite number"),
        ({"pad": 1}, "pad is 1, expected true or false"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ServeConfig(**settings)
