"""Plain data, as JSON has it, back into the dataclasses that it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from configs.names import near

T = TypeVar("T")

_SCALARS: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}


def decode(kind: type[T], value: Any, where: str = "") -> T:
    """Turn plain data into a dataclass; lists become tuples where it has tuples.

    Args:
        kind: whose fields are scalars, texts of a `Literal`, lists, tuples, dictionaries and dataclasses of such, or
            one of them or None.
        where: the path to the value, for messages.

    Raises:
        ValueError: a field is unknown, missing or of the wrong kind; one line with its path, got and expected.
    """
    decoded: T = _decode(kind, value, where)
    return decoded


def show(value: Any) -> str:
    """A value as JSON, shortened, for messages."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _decode(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        only = next(option for option in inner if option is not type(None))
        return None if value is None else _decode(only, value, where)
    prefix = f"{where}: " if where else ""
    if origin is Literal:
        if value not in inner:
            hint = near(value, inner) if isinstance(value, str) else ""
            raise ValueError(f"{prefix}got {show(value)}{hint}, expected one of {', '.join(map(str, inner))}")
        return value
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{prefix}got {show(value)}, expected a list")
        fixed = origin is tuple and inner[-1] is not Ellipsis
        if fixed and len(value) != len(inner):
            raise ValueError(f"{prefix}got {show(value)}, expected a list of {len(inner)}")
        kinds = inner if fixed else [inner[0]] * len(value)
        return origin(_decode(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict or is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ValueError(f"{prefix}got {show(value)}, expected an object")
        if is_dataclass(kind):
            return _decode_dataclass(kind, value, where)
        return {key: _decode(inner[1], item, _join(where, key)) for key, item in value.items()}
    accepted, expected = _SCALARS[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{prefix}got {show(value)}, expected {expected}")
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_dataclass(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    hints = _hints(kind)
    for key in value:
        if key not in hints:
            raise ValueError(f"{_join(where, key)}: not a known field, expected one of {', '.join(hints)}")
    arguments: dict[str, Any] = {}
    for entry in fields(kind):
        if entry.name in value:
            arguments[entry.name] = _decode(hints[entry.name], value[entry.name], _join(where, entry.name))
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"{_join(where, entry.name)}: missing")
    try:
        return kind(**arguments)
    except ValueError as error:
        # A section of settings may name itself: "encoder.width ..." of what lies at "policy.encoder".
        own = where.rpartition(".")[2]
        parent = where.removesuffix(own).removesuffix(".") if own and str(error).startswith(f"{own}.") else where
        raise ValueError(_join(parent, str(error))) from None


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
