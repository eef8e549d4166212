"""Command-line options from the configuration dataclasses: a named YAML run, overridden by `--section.key value`."""

from __future__ import annotations

import difflib
import re
from dataclasses import fields, is_dataclass
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from configs.run import RunConfig, find_run, named_runs


def run_parser(command: str, purpose: str, default: str) -> ArgumentParser:
    """A parser that knows every field of `RunConfig`, and `--config` for a named run or a YAML file."""
    parser = ArgumentParser(prog=f"vla {command}", description=purpose, exit_on_error=False, default_env=False)
    parser.add_argument("--config", default=default, help=f"named run ({', '.join(named_runs())}) or a YAML file")
    parser.add_class_arguments(RunConfig, as_group=True, fail_untyped=True)
    return parser


def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Parse, with the chosen run's YAML file as defaults.

    Raises:
        ValueError: one line that names the option, and the nearest one where it is unknown.
    """
    known = {option for action in parser._actions for option in action.option_strings}
    for argument in arguments:
        option = argument.split("=")[0]
        if option.startswith("--") and option not in known:
            near = difflib.get_close_matches(option, known, 1, 0.6)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"option {option!r} is unknown{hint}; see `{parser.prog} --help`")
    try:
        if "--config" in known:
            parser.default_config_files = [str(find_run(_config_name(arguments, parser)))]
        return parser.parse_args(arguments)
    except ArgumentError as error:
        raise ValueError(_one_line(str(error))) from None


def run_config(parsed: Namespace) -> RunConfig:
    """The `RunConfig` that was parsed."""
    config: RunConfig = _build(RunConfig, parsed)
    return config


def _build(kind: Any, values: Namespace) -> Any:
    built = {}
    for item in fields(kind):
        value = getattr(values, item.name)
        if isinstance(value, Namespace):
            value = _build(_kind_of(kind, item.name), value)
        built[item.name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)


def _kind_of(kind: Any, name: str) -> Any:
    from typing import get_type_hints

    hint = get_type_hints(kind)[name]
    assert is_dataclass(hint), f"{kind.__name__}.{name}"
    return hint


def _config_name(arguments: list[str], parser: ArgumentParser) -> str:
    for i, argument in enumerate(arguments):
        if argument == "--config" and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith("--config="):
            return argument.split("=", 1)[1]
    return str(parser.get_default("config"))


def _one_line(text: str) -> str:
    """The library's message without its tree of nested reasons, as one line."""
    return re.sub(r"\s+", " ", text).strip()
