"""Where pretrained text models come from: a local folder, or a hub name, looked up in the hub's cache and then online.

transformers is imported here and nowhere earlier: it takes seconds, and only policies with pretrained text need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

T = TypeVar("T")


def read_source(name: str, part: str, read: Callable[[str], T]) -> T:
    """`read`'s answer about the folder or hub name, with whatever goes wrong turned into one line.

    Args:
        name: `PretrainedTextConfig.source`.
        part: what is read, for the message.

    Raises:
        ValueError: no such folder, not in the cache and not online, or not to be used.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ValueError(f"language.pretrained.source {name!r}: no such folder; give a local folder or a hub name")
    import vla_policy.torchvision_shim  # noqa: F401 - before transformers, which imports torchvision

    with _quiet():
        try:
            return read(str(folder) if folder.is_dir() else name)
        except (ImportError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
            raise ValueError(
                f"language.pretrained.source {name!r}: no usable {part} ({one_line(error)}); give a local folder or "
                "the name of a cached or downloadable text model of transformers, with its weights as safetensors"
            ) from None


def one_line(error: Exception) -> str:
    """The first sentence or so of a library's message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and reports; what matters of them becomes an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
