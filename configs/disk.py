"""Room on a disk: what is missing is said before the work, and in a sentence where it runs out all the same."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
TORCH = ("unexpected pos", "inline_container", "PytorchStreamWriter")  # what `torch.save` makes of a full disk


class DiskFullError(OSError, ValueError):
    """There is no room for a file; the message says for which, and what to do.

    A ValueError, too: in a worker it ends all of the work, for the next job would have no more room.
    """


def free_bytes(path: Path) -> int:
    """What may still be written at a place that need not exist yet."""
    place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(place).free


def require_room(path: Path, needed: int, what: str, then: str = "") -> None:
    """Refuse work whose files will not fit.

    Args:
        needed: bytes.
        what: that needs them, for the message.
        then: a sentence about what is kept.

    Raises:
        DiskFullError: there is less room.
    """
    free = free_bytes(path)
    if needed > free:
        missing = f"{what} needs {in_words(needed)}, {in_words(free)} are free, {in_words(needed - free)} are missing"
        raise DiskFullError(_sentence(path, missing, then))


@contextmanager
def filling(path: Path, then: str = "") -> Iterator[None]:
    """Say of a full disk which file did not fit, which neither the system nor torch does.

    Raises:
        DiskFullError: instead of their error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFullError(_sentence(path, f"the disk is full, {in_words(free_bytes(path))} are free", then)) from None
    except RuntimeError as error:
        reason = str(error).split("\n")[0]
        if not any(words in reason for words in TORCH):
            raise
        raise DiskFullError(_sentence(path, f"{reason}, {in_words(free_bytes(path))} are free", then)) from None


@contextmanager
def whole_folder(path: Path, then: str = "") -> Iterator[Path]:
    """An empty folder to write into, which takes the place of what is at `path` once all went well; otherwise it is
    removed, and what was there stays.

    Args:
        then: a sentence about what is kept if the disk is full.

    Raises:
        DiskFullError: there is no room.
        FileExistsError: there is a file of that name.
    """
    if path.exists() and not path.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with filling(path, then):
            partial.mkdir(parents=True)
            yield partial
        replace_folder(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # it may be what fills the disk
        raise


def replace_folder(partial: Path, path: Path) -> None:
    """Put a folder that is whole in the place of one that may be there. A kill in between leaves one of the two, at its
    place or beside it as `.NAME.previous`.
    """
    previous = path.with_name(f".{path.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if path.exists():
        os.replace(path, previous)
    os.replace(partial, path)
    shutil.rmtree(previous, ignore_errors=True)


def in_words(count: int) -> str:
    """Bytes for people: 1234567 → "1.2 MB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _sentence(path: Path, why: str, then: str) -> str:
    return f"{path}: not written, {why}; free some space, or write elsewhere{then and '. '}{then}"
