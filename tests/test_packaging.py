"""What an installed package has: every file that the code reads, and references that lead somewhere."""

from __future__ import annotations

import importlib
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import gymnasium

from envs.tabletop.specs import SPECS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("configs", "envs", "vla_policy", "training", "eval")


def test_files_beside_the_code_are_packed() -> None:
    patterns = [
        f"{package.replace('.', '/')}/{pattern.replace('**', '*')}"
        for package, chosen in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in chosen
    ]
    beside = [
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc") and "__pycache__" not in file.parts
    ]
    assert len(beside) > 20
    assert [file for file in beside if not any(fnmatch(file, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(file, pattern) for file in beside)] == []


def test_references_lead_somewhere() -> None:
    points = PROJECT["project"]["entry-points"]
    references = [*PROJECT["project"]["scripts"].values(), *(r for group in points.values() for r in group.values())]
    for reference in references:
        module, _, name = reference.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), reference


def test_the_entry_point_registers_for_whoever_reads_it() -> None:
    module, _, name = PROJECT["project"]["entry-points"]["gymnasium.envs"]["__root__"].partition(":")
    getattr(importlib.import_module(module), name)()
    assert all(spec.env_id in gymnasium.registry for spec, _ in SPECS.values())
