"""Bytes are what openpi's clients make of a message, and whatever else comes is refused, cheaply."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest

from vla_policy.server.wire import DTYPES, WireError, pack, unpack

# [1, 2] as uint8, written out from openpi's description of an array and msgpack's specification.
ARRAY = b"".join(
    [
        b"\x84",
        b"\xc4\x0b__ndarray__\xc3",
        b"\xc4\x04data\xc4\x02\x01\x02",
        b"\xc4\x05dtype\xa3|u1",
        b"\xc4\x05shape\x91\x02",
    ]
)


def array(**changes: Any) -> bytes:
    """An encoded array, with entries replaced."""
    fields = {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2], **changes}
    packed: bytes = msgpack.packb({key.encode(): value for key, value in fields.items()})
    return packed


def test_an_array_is_the_bytes_that_openpi_sends() -> None:
    assert pack(np.array([1, 2], np.uint8)) == ARRAY
    assert np.array_equal(unpack(ARRAY), np.array([1, 2], np.uint8))


@pytest.mark.parametrize("name", DTYPES)
def test_arrays_and_scalars_come_back_as_they_were(name: str) -> None:
    values = np.arange(6).astype(name).reshape(1, 2, 3)
    for sent in (values, values[:, ::-1], values[0, 0, 1], np.zeros((0, 3), name), np.array(1, name)):
        got = unpack(pack({"x": [sent]}))["x"][0]
        assert got.dtype == sent.dtype if name != "<f8" else np.asarray(got).dtype == sent.dtype  # a Python float, too
        assert np.array_equal(got, sent)


def test_messages_come_back_as_they_were() -> None:
    message = {"prompt": "rot: größer", "step": 3, "rate": 0.5, "act": False, "more": {"list": [1, None, "a"]}}
    assert unpack(pack(message)) == message


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["a"]), np.array([1j]), object(), {1, 2}, 2**70])
def test_what_cannot_be_sent_is_refused(value: Any) -> None:
    with pytest.raises(WireError, match="cannot be sent"):
        pack({"x": value})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"GET / HTTP/1.1\r\n\r\n",
        ARRAY[:-1],
        ARRAY + b"\x00",
        b"\xa2\xff\xff",  # not UTF-8
        b"\x91" * 5000 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",  # a list of four thousand million
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc7\x05\x01hello",  # an extension
        b"\xd6\xff\x00\x00\x00\x00",  # a time
        b"\x81\x01\x02",  # a number as key
        b"\x81\x90\x02",  # a list as key
        pack(list(range(65))),
        array(dtype="|O"),
        array(dtype="<U2"),
        array(dtype="f4,f4"),
        array(dtype=">f4"),
        array(dtype=b"<f4"),
        array(dtype=["<f4"]),
        array(dtype=None),
        array(data="texttext"),
        array(data=None),
        array(shape=[3]),
        array(shape=[-2]),
        array(shape=[2**40, 2**40]),
        array(shape=[True, 2]),
        array(shape=[2.0]),
        array(shape="2"),
        array(shape=[1] * 9 + [2]),
        array(data=b"", shape=[0] + [2**30] * 7),
        msgpack.packb({b"__ndarray__": True}),
        msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
        msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}),
        msgpack.packb({b"__npgeneric__": True, b"data": [1] * 9, b"dtype": "<f4"}),
    ],
)
def test_what_is_no_message_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        unpack(data)
    assert 0 < len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_headers_that_claim_much_cost_little() -> None:
    data = b"\xdd\x00\x01\x86\xa0" * 1000 + bytes(100_000)  # a thousand lists of 100,000, one in the other
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            unpack(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data)
    finally:
        tracemalloc.stop()


def test_a_scalar_beyond_its_range_is_told_to_nobody() -> None:
    """The server would else warn on its own stderr, as often as a client likes."""
    found = unpack(pack({b"__npgeneric__": True, b"data": 1e300, b"dtype": "<f2"}))
    assert np.isinf(found)
