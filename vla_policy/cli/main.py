"""`vla COMMAND`: parses the command line, calls one function, and turns a user's mistake into one line.

Heavy imports happen inside the commands, so that `--help` is quick and the GL backend is chosen before MuJoCo loads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

COMMANDS: dict[str, str] = {
    "demo": "the whole way for one named run: demonstrations, training, evaluation, videos, report",
    "collect": "record demonstrations of the scripted experts",
    "train": "train a policy on recorded demonstrations",
    "eval": "success rates with intervals on unseen seeds, with controls, as JSON, table and HTML report",
    "rollout": "one episode as a video",
    "tasks": "list the tasks with an example instruction each",
    "bench": "measure the speed of collection, the data pipeline and the policy, as ratios",
    "doctor": "look for what is missing or slow on this machine, and say what to do",
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
        return _command(name)(rest)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished is kept", code=130)
    except (ValueError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        return _fail(" ".join(str(error).split()))
    except MemoryError:
        return _fail("out of memory; lower train.batch, eval.workers or collect.workers")


def _command(name: str) -> Callable[[list[str]], int]:
    if name == "doctor":
        from vla_policy.cli.doctor import run_doctor

        return lambda rest: _no_arguments(rest, "doctor", run_doctor)
    from vla_policy.cli.commands import RUN

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


def _fail(message: str, code: int = 2) -> int:
    print(f"vla: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
