"""Other people's modules: those that register tasks, and what "module:name" stands for in them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

ENTRY_POINTS = "vla_policy.tasks"


def load_name(reference: str, what: str) -> Any:
    """What "module:name" stands for; `what` says what it is, for messages.

    Raises:
        ValueError: it cannot be loaded.
    """
    module, _, name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {reference!r} cannot be loaded ({error})") from None
    return found


@cache
def load_entry_points() -> None:
    """Tasks of installed packages. One that is broken must not take the others along."""
    for point in entry_points(group=ENTRY_POINTS):
        try:
            loaded = point.load()
            if isinstance(loaded, Callable):  # type: ignore[arg-type]
                loaded()
        except Exception as error:  # noqa: BLE001 - other people's code
            said = " ".join(str(error).split())
            print(f"vla: tasks of {point.value!r} are left out: {type(error).__name__}: {said}", file=sys.stderr)


def import_module(module: str, given: str) -> None:
    """Import a module once, by name or as a path to a file; `given` says how it was given, for messages.

    Raises:
        ValueError: it cannot be imported.
    """
    try:
        _import_once(module)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{given} {module}: {type(error).__name__}: {said}") from error


@cache
def _import_once(module: str) -> None:
    if not module.endswith(".py"):
        importlib.import_module(module)
        return
    path = Path(module)
    if not path.is_file():
        raise ValueError("no such file")
    # Under the file's own name, so that "module:name" of its experts finds it.
    if path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", None) != module:
        raise ValueError(f"a module named {path.stem!r} is loaded already; choose another file name")
    if _is_library(path):
        raise ValueError(f"{path.stem!r} is the name of a library, which others could then not import; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[path.stem]
        raise


def _is_library(path: Path) -> bool:
    """Whether Python finds something else than this file under the file's name."""
    if path.stem in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(path.stem)
    except (ImportError, ValueError):
        return False
    if spec is None or (spec.origin is None and not spec.has_location and spec.loader is None):
        return False  # nothing, or a folder without code that happens to have the name
    return spec.origin is None or Path(spec.origin).resolve() != path.resolve()
