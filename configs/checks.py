"""Checks that several configurations share. Settings come from files and programs, so each may be of any kind."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from configs.names import near

KINDS = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    tuple: "a list such as [a, b]",
    NoneType: "nothing",
}


def check_kinds(section: str, settings: Any) -> None:
    """Refuse a value of the wrong kind, and a word that is not among the choices.

    A field called `name` may be any text: which names there are is known where the parts are registered.

    Args:
        section: where the settings are, such as "encoder.conv3d"; "" at the top.

    Raises:
        ValueError: one line with the field, what was got and what was expected.
    """
    for name, hint in get_type_hints(type(settings)).items():
        expected = str if name == "name" else hint
        value = getattr(settings, name)
        if not _fits(value, expected):
            raise ValueError(f"{_path(section, name)} is {value!r}, expected {_expected(value, expected)}")


def check_least(section: str, settings: Any, **least: int) -> None:
    """Refuse a number below the least one of its field."""
    for name, bound in least.items():
        if getattr(settings, name) < bound:
            raise ValueError(f"{_path(section, name)} {getattr(settings, name)} must be at least {bound}")


def check_most(section: str, settings: Any, **most: int) -> None:
    """Refuse a number above the largest one of its field."""
    for name, bound in most.items():
        if getattr(settings, name) > bound:
            raise ValueError(f"{_path(section, name)} {getattr(settings, name)} must be at most {bound}")


def check_host(host: str) -> None:
    """Refuse what cannot be an address to listen at."""
    if not host.strip() or not host.isprintable():
        raise ValueError(f"host {host!r} must be an address of this machine, such as 127.0.0.1")


def check_shares(section: str, settings: Any, *names: str) -> None:
    """Refuse a probability, or a share, that is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise ValueError(f"{_path(section, name)} {getattr(settings, name)} must lie in [0, 1)")


def refuse_unused(section: str, settings: Any) -> None:
    """Refuse settings of a variant that is not chosen, where they differ from their defaults: nothing reads them."""
    for variant in variants_of(type(settings)):
        if variant != settings.name:
            name_is = f"{_path(section, 'name')} is {settings.name!r}"
            refuse_changed(f"{section}.{variant}", getattr(settings, variant), f"{section}.name {variant!r}", name_is)


def refuse_changed(section: str, settings: Any, user: str, chosen: str) -> None:
    """Refuse settings that differ from their defaults.

    Args:
        user, chosen: what would read them, and what is chosen in its place, for the message.
    """
    usual = type(settings)()
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value != getattr(usual, item.name):
            raise ValueError(
                f"{_path(section, item.name)} {value!r} is for {user}, but {chosen}; change the name, or leave the "
                "setting out"
            )


def variants_of(kind: type) -> list[str]:
    """The choices of the field `name` that have a section of settings of their own."""
    hints = get_type_hints(kind)
    return [name for name in get_args(hints["name"]) if name in hints]


def own_settings(settings: Any) -> Any:
    """The section of the variant that is chosen; None if it has no settings of its own."""
    return getattr(settings, settings.name) if settings.name in variants_of(type(settings)) else None


def _path(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint)


def _expected(value: Any, hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(inner)}{near(str(value), inner)}"
    if origin is tuple:
        several = inner[-1] is Ellipsis
        of = _expected(None, inner[0])
        return f"a list, each {of}" if several else f"a list of {len(inner)}, each {of}"
    if is_dataclass(hint):
        return "a section with settings"
    return KINDS[hint]
