"""JSON and YAML that anybody may have written: whatever is wrong with a text is a ValueError."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import yaml

TOO_DEEP = "it is nested too deeply"


def parse_json(text: str, *, constant: Callable[[str], Any] | None = None) -> Any:
    """What a JSON text says.

    Args:
        constant: called with NaN and Infinity, which JSON does not have but Python's reader takes.

    Raises:
        ValueError: it is no JSON, or lists and objects in it are nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=constant)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def parse_yaml(text: str) -> Any:
    """What a YAML text says, plain values alone.

    Raises:
        ValueError: it is no YAML, asks for something else, or is nested too deeply; one line.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError):  # the library's own, of `!!int ""`
        raise ValueError("a value is not of the kind that its tag says") from None
