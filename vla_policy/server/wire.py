"""Messages as bytes: msgpack, with NumPy arrays as openpi's clients encode them.

An array is the map {b"__ndarray__": True, b"data": bytes in row-major order, b"dtype": NumPy's name such as "<f4",
b"shape": whole numbers}, a NumPy scalar {b"__npgeneric__": True, b"data": number, b"dtype": name}.

What comes in may be anything. Nothing is executed, and no more memory is taken than a small multiple of the message.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np

ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
# By name and never by parsing one: no objects, texts or records, whose names can say anything.
DTYPES = {
    np.dtype(kind).str: np.dtype(kind)
    for kind in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
}
LONGEST = 64  # entries of a list or map from a client; msgpack makes room for as many as a header claims
MOST_AXES = 8


class WireError(ValueError):
    """Bytes that are no message; the text says what is wrong with them."""


def pack(value: Any) -> bytes:
    """A message of dicts, lists, texts, numbers and NumPy arrays as bytes.

    Raises:
        WireError: something else is in it.
    """
    try:
        packed: bytes = msgpack.packb(value, default=_encode)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"cannot be sent: {error}") from None
    return packed


def unpack(data: bytes, longest: int = LONGEST) -> Any:
    """The message in some bytes. Arrays are read-only views of them.

    Args:
        longest: entries of a list or map at most.

    Raises:
        WireError: they are no message, or one with more in it than messages have.
    """
    try:
        return msgpack.unpackb(
            data, object_hook=_decode, ext_hook=_refuse, max_array_len=longest, max_map_len=longest, max_ext_len=0
        )
    except WireError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WireError(f"not a msgpack message of {len(data)} bytes ({reason})") from None


def _encode(value: Any) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.str in DTYPES:
        if isinstance(value, np.ndarray):
            return {ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
        return {SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
    kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray | np.generic) else type(value).__name__
    raise TypeError(f"got {kind}, expected texts, numbers, and arrays of {', '.join(DTYPES)}")


def _decode(found: dict[Any, Any]) -> Any:
    if ARRAY in found:
        return _array(found)
    if SCALAR in found:
        return _scalar(found)
    return found


def _scalar(found: dict[Any, Any]) -> Any:
    value, dtype = found.get(b"data"), _dtype(found)
    if isinstance(value, int | float):
        with suppress(OverflowError), np.errstate(over="ignore"):  # a float16 beyond its range is infinite
            return dtype.type(value)
    raise WireError(f"a NumPy scalar of {dtype} holds {shown(value)}, which is no such number")


def _array(found: dict[Any, Any]) -> np.ndarray:
    data, shape, dtype = found.get(b"data"), found.get(b"shape"), _dtype(found)
    if not isinstance(data, bytes):
        raise WireError(f"an array's data is {type(data).__name__}, expected bytes")
    sizes = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**31 for size in shape)
    if not isinstance(shape, list) or not sizes or len(shape) > MOST_AXES:
        raise WireError(f"an array's shape is {shown(shape)}, expected {MOST_AXES} whole numbers at most")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(data):
        raise WireError(f"an array {shape} of {dtype} has {len(data)} bytes, expected {expected}")
    return np.frombuffer(data, dtype).reshape(shape)


def _dtype(found: dict[Any, Any]) -> np.dtype[Any]:
    name = found.get(b"dtype")
    if not isinstance(name, str) or name not in DTYPES:
        raise WireError(f"an array's dtype is {shown(name)}, expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _refuse(code: int, _: bytes) -> Any:
    raise WireError(f"holds a msgpack extension of type {code}, which messages do not have")


def shown(value: Any) -> str:
    """What somebody sent, for a message: it may be anything and long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
