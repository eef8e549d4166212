"""Command-line options from the configuration dataclasses: a named YAML run, overridden by `--section.key value`."""

from __future__ import annotations

import glob
import re
from argparse import SUPPRESS
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from configs.commands import COMMANDS
from configs.decode import decode
from configs.evaluation import EvalConfig
from configs.names import near
from configs.reading import parse_yaml
from configs.run import RunConfig, find_run, named_runs

# Options that are paths: empty, they would be the folder that one happens to be in.
PLACES = (
    "check",
    "checkpoint",
    "checkpoints",
    "cloning",
    "data",
    "dataset",
    "out",
    "policy_from",
    "results",
    "source",
    "video",
)


def plain_parser(command: str, more: str = "", *, tasks: bool = True) -> ArgumentParser:
    """A parser for a command's own options, and for modules that register tasks where it has to do with tasks.

    Args:
        more: a sentence beside the command's purpose.
    """
    purpose = ". ".join(filter(None, [COMMANDS[command].purpose, more]))
    parser = ArgumentParser(prog=f"vla {command}", description=purpose, exit_on_error=False, default_env=False)
    help_ = "module or .py file that registers tasks of your own"
    if tasks:
        parser.add_argument("--task-module", type=str, default="", help=help_)
    return parser


def run_parser(command: str, default: str, more: str = "", *, hidden: tuple[str, ...] = ()) -> ArgumentParser:
    """A parser that knows every field of `RunConfig`, and `--config` for a named run or a YAML file.

    Args:
        default: the run that is taken without `--config`.
        hidden: sections that the command has no use for: a run's file may have them, the help does not show them.
    """
    parser = plain_parser(command, more)
    parser.add_argument("--config", default=default, help=f"named run ({', '.join(named_runs())}) or a YAML file")
    parser.add_class_arguments(RunConfig, as_group=True, fail_untyped=True)
    for action in parser._actions:
        if action.dest.split(".")[0] in hidden:
            action.help = SUPPRESS
    return parser


def describe_option(parser: ArgumentParser, name: str, words: str) -> None:
    """Say of an option what it means in this command, where that is not what the configuration says of it."""
    for action in parser._actions:
        if action.dest == name:
            action.help = words


def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Parse, with the chosen run's YAML file as defaults. Lists are given as `a,b` or as `[a, b]`.

    Raises:
        ValueError: one line that names the option or the file's key, and the nearest one where it is unknown.
    """
    known = {option for action in parser._actions for option in action.option_strings}
    for argument in arguments:
        option = argument.split("=")[0]
        if option.startswith("--") and option not in known:
            raise ValueError(f"option {option!r} is unknown{near(option, known, 0.6)}; see `{parser.prog} --help`")
    try:
        if "--config" in known:
            run = find_run(_config_name(arguments, parser))
            _check_keys(run)
            # The library takes a pattern; a path from the root, so that it does not look for "~" either.
            parser.default_config_files = [glob.escape(str(run.absolute()))]
        parsed = parser.parse_args(_bracket_lists(parser, arguments))
    except ArgumentError as error:
        raise ValueError(_one_line(str(error))) from None
    for name in PLACES:
        value, option = getattr(parsed, name, None), f"--{name.replace('_', '-')}"
        given = f"{option}=" in arguments or (option, "") in pairwise(arguments)  # as a list, nothing has no parts
        if given or value == "" or (isinstance(value, list | tuple) and "" in value):
            shown = option if option in known else name.upper()
            raise ValueError(f"{shown} is empty; name a place")
    if getattr(parsed, "videos", 0) < 0:
        raise ValueError(f"--videos {parsed.videos} must be 0 or more")
    return parsed


def run_config(parsed: Namespace) -> RunConfig:
    """The `RunConfig` that was parsed."""
    values = parsed.as_dict()
    return decode(RunConfig, {item.name: values[item.name] for item in fields(RunConfig)})


def eval_config(parsed: Namespace) -> EvalConfig:
    """The evaluation alone, of a policy that need not be the run's."""
    return decode(EvalConfig, parsed.eval.as_dict())


def _check_keys(path: Path) -> None:
    """Refuse a YAML file with keys that are no fields of `RunConfig`, which the library does without naming others."""
    try:
        read = parse_yaml(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not readable as YAML ({error})") from None
    known = set(_keys(RunConfig))
    for key in _given_keys(path, read, RunConfig):
        if key not in known:
            # Somebody who left the section out may mean any of them.
            inside = [name for name in _keys(RunConfig) if name.endswith(f".{key}")]
            hint = f" (did you mean {' or '.join(inside)}?)" if inside else near(key, known, 0.6)
            raise ValueError(f"{path}: key {key!r} is unknown{hint}; see `vla train --help`")


def _keys(kind: Any, prefix: str = "") -> Iterator[str]:
    for item in fields(kind):
        yield prefix + item.name
        inner = get_type_hints(kind)[item.name]
        if is_dataclass(inner):
            yield from _keys(inner, f"{prefix}{item.name}.")


def _given_keys(path: Path, read: Any, kind: Any, prefix: str = "") -> Iterator[str]:
    """The keys of a file that was read, down to where they leave the configuration's fields."""
    if not isinstance(read, dict):
        of = f"{prefix[:-1]!r}" if prefix else "the file"
        raise ValueError(f"{path}: {of} holds {read!r}, expected `key: value` lines; see configs/runs/debug.yaml")
    hints = get_type_hints(kind)
    for name, value in read.items():
        yield f"{prefix}{name}"
        if is_dataclass(hints.get(name)):
            yield from _given_keys(path, value, hints[name], f"{prefix}{name}.")
        elif value is None and name in hints and type(None) not in get_args(hints[name]):
            raise ValueError(f"{path}: key '{prefix}{name}' has no value; give one, or leave the line out")


def _bracket_lists(parser: ArgumentParser, arguments: list[str]) -> list[str]:
    """`--tasks reach,track` as `--tasks=[reach,track]`, which is how the library reads a tuple."""
    lists = {
        option
        for action in parser._actions
        if get_origin(getattr(action, "_typehint", None)) is tuple
        for option in action.option_strings
    }
    done: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if done and done[-1] in lists and not argument.startswith("--"):
            option, equals, value = done.pop(), "=", argument
        if option in lists and equals and not value.startswith("["):
            value = f"[{value}]"
        done.append(option + equals + value)
    return done


def _config_name(arguments: list[str], parser: ArgumentParser) -> str:
    name = str(parser.get_default("config"))
    for i, argument in enumerate(arguments):
        if argument == "--config" and i + 1 < len(arguments):
            name = arguments[i + 1]
        elif argument.startswith("--config="):
            name = argument.split("=", 1)[1]
    return name


def _one_line(text: str) -> str:
    """The library's message as one line, and without Python's names of types."""
    text = re.sub(
        r"Parser key \"([\w.]+)\":\s+Unable to load config '(.*?)'\s+- .*",
        r"option '--\1' is a section, and cannot be '\2'; set its settings one by one, as `--help` lists them",
        text,
        flags=re.DOTALL,
    )
    union = r"Does not validate against any of the Union subtypes\s+Subtypes:.*?- (.*?)\s+- .*Given value: (.*)"
    text = re.sub(union, r"\1. Got value: \2", text, flags=re.DOTALL)
    text = re.sub(r"a typing\.Literal\[(.*?)\]", r"one of \1", text)
    text = re.sub(r"a <class '(\w+)'>", r"\1", text.replace("<class 'tuple'>", "list such as [a, b]"))
    return re.sub(r"\s+", " ", text).strip()
