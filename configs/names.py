"""What is said about a name that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """A hint at the known name that was probably meant, or an empty text."""
    found = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f" (did you mean {found[0]}?)" if found else ""


def unknown(kind: str, name: str, known: Iterable[str], choices: str | None = None) -> ValueError:
    """The error for a name that is none of the known ones: "task 'trak' is unknown (did you mean track?); choose …".

    Args:
        choices: what to choose from, in words; the known names if left out.
    """
    names = list(known)
    listed = choices if choices is not None else f"choose one of {', '.join(names)}"
    return ValueError(f"{kind} {name!r} is unknown{near(name, names)}; {listed}")
