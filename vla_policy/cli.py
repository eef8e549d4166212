"""`vla COMMAND`: parses the command line, calls one function, and turns a user's mistake into one line.

Heavy imports happen inside the commands, so that `--help` is quick and the GL backend is chosen before MuJoCo loads.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from configs.commands import COMMANDS
from configs.names import unknown

BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports of any program whose reader, such as `head`, has gone
OUT_OF_MEMORY = "out of memory; lower train.batch, eval.workers or collect.workers"
SHORT_OF_MEMORY = ("out of memory", "can't allocate memory", "can't start new thread")
UNLOADED = ("failed to map segment", "Cannot allocate memory", "cannot allocate memory")  # of a library
# What to do when the system refuses something.
ADVICE: dict[int, str] = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EACCES: "choose a place where you may read and write",
    errno.EROFS: "choose a place where you may read and write",
    errno.EEXIST: "a file is where a folder is to be; choose another place",
    errno.ENOTDIR: "a part of this path is a file; choose another",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # here, and not when Python ends: nobody may be reading any more
    except BrokenPipeError:
        _say_no_more()
        return BROKEN_PIPE


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("vla_policy"))
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        return _fail(str(unknown("command", name, COMMANDS)))
    if lacking := _lacking_space(name):
        return _fail(lacking)
    # The oneDNN and tokenizers libraries otherwise chat or warn when processes fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with _terminated_as_interrupted():
            return _command(name)(rest)
    except KeyboardInterrupt:
        return _fail("; ".join(filter(None, ["interrupted", COMMANDS[name].kept])), code=130)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(_os_error(error))
    except ValueError as error:
        return _fail(" ".join(str(error).split()))
    except MemoryError:
        return _fail(OUT_OF_MEMORY)
    except ImportError as error:
        if not any(words in str(error) for words in UNLOADED):
            raise
        return _fail(OUT_OF_MEMORY)
    except RuntimeError as error:
        if type(error).__name__ == "EpisodeError":  # of envs.rollout, which this file must not import
            return _fail(" ".join(str(error).split()), code=1)
        # torch's OutOfMemoryError of a GPU, and what its allocator says on a CPU.
        if not any(words in str(error) for words in SHORT_OF_MEMORY):
            raise
        return _fail(OUT_OF_MEMORY)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM and a closed terminal raise KeyboardInterrupt, too: what a command started must not outlive it, and its
    state is saved. One that is ignored (nohup) stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(name: str) -> Callable[[list[str]], int]:
    module, _, function = COMMANDS[name].run.partition(":")
    run: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    return run


def _lacking_space(name: str) -> str:
    """Why a command cannot start under `ulimit -v`, in a sentence; empty if it can."""
    from configs.memory import address_space

    allowed, needed = address_space(), COMMANDS[name].space
    if allowed is None or allowed >= needed * 1e9:
        return ""
    return (
        f"`vla {name}` needs {needed:g} GB of address space or more, {allowed / 1e9:.2f} GB are allowed; raise the "
        "limit (ulimit -v), and lower train.batch, train.threads or the workers if it is still too low"
    )


def _overview() -> str:
    lines = [f"  {name:<9}{command.purpose}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: vla COMMAND [options]", "", *lines, "", "`vla COMMAND --help` says more about each."])


def _os_error(error: OSError) -> str:
    """What the system refused, where, and what to do about it."""
    if not error.strerror:  # one of ours, with a sentence of its own
        return " ".join(str(error).split()) or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    advice = ADVICE.get(error.errno or 0, "")
    return f"{where}{error.strerror[:1].lower()}{error.strerror[1:]}{advice and f'; {advice}'}"


def _say_no_more() -> None:
    """Whoever read what we print has gone: what is still to be written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _fail(message: str, code: int = 2) -> int:
    print(f"vla: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
