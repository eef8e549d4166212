"""`vla COMMAND`: parses the command line, calls one function, and turns a user's mistake into one line.

Heavy imports happen inside the commands, so that `--help` is quick and the GL backend is chosen before MuJoCo loads.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

COMMANDS: dict[str, str] = {
    "demo": "the whole way for one named run: demonstrations, training, evaluation, videos, report",
    "collect": "record demonstrations of the scripted experts",
    "train": "train a policy on recorded demonstrations",
    "eval": "success rates with intervals on unseen seeds, with controls, as JSON, table and HTML report",
    "compare": "train and judge many policies on the same data and seeds, as one table and HTML report",
    "rollout": "one episode as a video",
    "ground": "where and when a video shows what the words mean: boxes and interval, as a video and JSON",
    "tasks": "list the tasks with an example instruction each",
    "bench": "speed of collection and data pipeline as ratios taken side by side, and the experts' success",
    "doctor": "look for what is missing or slow on this machine, and say what to do",
}
# What an interrupt leaves behind, where it leaves anything.
KEPT: dict[str, str] = {
    "demo": "what was collected and trained is kept, and the same command goes on from there",
    "collect": "finished shards are kept, and the same command goes on from there",
    "train": "a state that was saved is kept, and --resume goes on from there",
    "compare": "finished rows and saved states are kept, and the same command goes on from there",
    "eval": "conditions that were finished are in results.json; the same command begins anew",
}
OUT_OF_MEMORY = "out of memory; lower train.batch, envs.workers or collect.workers"
# What to do when the system refuses something.
ADVICE: dict[int, str] = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EACCES: "choose a place where you may read and write",
    errno.EROFS: "choose a place where you may read and write",
    errno.ENOTDIR: "a part of this path is a file; choose another",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("vla_policy"))
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1, 0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return _fail(f"command {name!r} is unknown{hint}; choose one of {', '.join(COMMANDS)}")
    # The oneDNN and tokenizers libraries otherwise chat or warn when processes fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with _terminated_as_interrupted():
            return _command(name)(rest)
    except KeyboardInterrupt:
        return _fail("; ".join(["interrupted", *([KEPT[name]] if name in KEPT else [])]), code=130)
    except OSError as error:
        return _fail(_os_error(error))
    except ValueError as error:
        return _fail(" ".join(str(error).split()))
    except MemoryError:
        return _fail(OUT_OF_MEMORY)
    except RuntimeError as error:
        # torch's OutOfMemoryError of a GPU, and what its allocator says on a CPU.
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
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
    if name == "doctor":
        from eval.doctor import run_doctor

        return lambda rest: _no_arguments(rest, "doctor", run_doctor)
    from eval.commands import RUN

    return RUN[name]


def _no_arguments(rest: list[str], name: str, run: Callable[[], Any]) -> int:
    if rest in (["-h"], ["--help"]):
        print(f"usage: vla {name}\n\n{COMMANDS[name]}")
        return 0
    if rest:
        raise ValueError(f"vla {name} takes no arguments, got {' '.join(rest)}")
    return int(run() or 0)


def _overview() -> str:
    lines = [f"  {name:<9}{purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(["usage: vla COMMAND [options]", "", *lines, "", "`vla COMMAND --help` says more about each."])


def _os_error(error: OSError) -> str:
    """What the system refused, where, and what to do about it."""
    if not error.strerror:  # one of ours, with a sentence of its own
        return " ".join(str(error).split()) or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    advice = ADVICE.get(error.errno or 0, "")
    return f"{where}{error.strerror[:1].lower()}{error.strerror[1:]}{advice and f'; {advice}'}"


def _fail(message: str, code: int = 2) -> int:
    print(f"vla: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
