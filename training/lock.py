"""One writer a place: a lock that says who has it, and that ends with its process however that ends.

The lock is the kernel's (flock), not the file's being there: what a killed process left behind stops nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType

from configs.reading import parse_json

LOCK = ".lock"  # inside a folder; beside a file it is called .NAME.lock
SHOWN = 120  # characters of the holder's command
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what some network file systems answer
TRIES = 100  # to make a file in a folder that others may remove at the same time
NAMED_WITHIN = 0.5  # seconds that a holder may take to write who it is


class LockedError(ValueError):
    """Another process writes there; the message says which."""


class Lock:
    """Keeps a place for this process until `release`, or until it ends. See `hold_folder` and `hold_file`.

    Raises:
        LockedError: another process has it.
    """

    def __init__(self, place: Path, file: Path) -> None:
        self._file = file
        # Folders that are made for the lock go again if nothing else has come into them.
        self._made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
        self._descriptor: int | None = None
        self._tries = 0
        try:
            while self._descriptor is None:
                self._descriptor = self._take(place)
        except BaseException:
            self._tidy()
            raise
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:SHOWN],
            "since": datetime.now().isoformat(" ", timespec="seconds"),
        }
        with contextlib.suppress(OSError):  # the disk may be full: the lock holds without its name
            os.truncate(self._descriptor, 0)
            os.write(self._descriptor, json.dumps(holder).encode())

    def _take(self, place: Path) -> int | None:
        """The locked file's descriptor, None if the file was removed meanwhile."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._tries += 1
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            if self._tries == TRIES:  # a folder that takes no files, such as those of /proc
                raise
            return None  # its folder has just been removed
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError(
                f"{place}: {_holder(self._file)} writes there; wait for it, end it, or choose another place"
            ) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                os.close(descriptor)
                raise
            print(f"vla: {place}: no locks on this file system; see that nothing else writes there", file=sys.stderr)
            return descriptor
        # Whoever had it before may have removed the file after this process opened it.
        if not _same(descriptor, self._file):
            os.close(descriptor)
            return None
        return descriptor

    def release(self) -> None:
        """Give the place back; does nothing the second time."""
        if self._descriptor is not None:
            # The file goes while the lock is held: nobody else's can be meant.
            if _same(self._descriptor, self._file):
                self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            self._tidy()

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def hold_folder(folder: Path) -> Lock:
    """Keep a folder, which is made if it is missing, for this process alone.

    Raises:
        LockedError: another process has it.
        ValueError: nothing can be made there.
    """
    _check_place(folder)
    return Lock(folder, folder / LOCK)


def hold_file(path: Path) -> Lock:
    """Keep the name of a file, or of a folder that appears under it at the end, for this process alone.

    Raises:
        LockedError: another process has it.
        ValueError: nothing can be made there.
    """
    if not path.name:
        raise ValueError(f"{path}: is there already, and has no name; name a new place in it")
    _check_place(path)
    return Lock(path, path.with_name(f".{path.name}.lock"))


def _check_place(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path}: is a link to {os.readlink(path)}, which is not there; remove it, or name another")


def _same(descriptor: int, file: Path) -> bool:
    """Whether the file of this name is the one that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    """Who has a lock, in words."""
    ends = time.monotonic() + NAMED_WITHIN
    while time.monotonic() < ends:
        try:
            holder = parse_json(file.read_text())
            return "process {pid} on {host}, `{command}`, since {since},".format(**holder)
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process"
