"""Who may import whom: the table of the architecture, held by reading the imports of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("vla_policy", "envs", "training", "eval", "configs")
VARIANTS = ("encoders", "fusion", "language", "grounding", "heads")
CLI = "vla_policy.cli"

# Prefixes of what a file may import of ours besides its own package. The longest matching key counts.
ALLOWED: dict[str, tuple[str, ...]] = {
    "vla_policy": (),
    CLI: PACKAGES,
    "envs": (),
    "training": ("vla_policy", "training.data.episodes", "envs.cores"),
    "training.dagger": ("vla_policy", "envs", "eval.rollout"),
    "training.rl": ("vla_policy", "envs", "eval.rollout"),
    "eval": ("vla_policy", "envs"),
    "configs": ("configs.policy", "training.collect", "envs.task", "configs.training", "eval.evaluate"),
}
# What a package must not know of other people's.
FOREIGN: dict[str, tuple[str, ...]] = {
    "vla_policy": ("mujoco", "gymnasium", "OpenGL"),
    "envs": ("torch", "transformers", "accelerate"),
    "training": ("mujoco", "gymnasium", "OpenGL"),
}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import statement's target, as a module or a name in one."""

    file: str  # dotted name of the importing module
    target: str
    line: int
    lazy: bool  # inside a function, or for the type checker alone

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, lazy
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from statements(node, lazy or typing or inside)


def read(path: Path) -> list[Import]:
    found = []
    for node, lazy in statements(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the package's name"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        found += [Import(file=dotted(path), target=target, line=node.lineno, lazy=lazy) for target in targets]
    return found


FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
IMPORTS = [one for path in FILES for one in read(path)]
OURS = [one for one in IMPORTS if one.target.split(".")[0] in PACKAGES]


def allowed(one: Import) -> bool:
    own = one.file.split(".")[0]
    key = max((key for key in ALLOWED if within(one.file, key)), key=len)
    if own == "vla_policy" and key != CLI and within(one.target, CLI):
        return False  # the root composes the rest, never the other way round
    return within(one.target, own) or any(within(one.target, prefix) for prefix in ALLOWED[key])


def test_the_files_are_read() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)
    assert len(OURS) > 50


def test_packages_import_only_what_the_table_allows() -> None:
    assert [str(one) for one in OURS if not allowed(one)] == []


def test_the_check_would_notice() -> None:
    def would(file: str, target: str) -> bool:
        return allowed(Import(file=file, target=target, line=1, lazy=True))

    assert would("training.data.batches", "training.data.episodes.Dataset")
    assert not would("training.data.batches", "envs.tabletop.env.TabletopEnv")
    assert not would("training.bc", "eval.rollout.run_group")
    assert would("training.dagger", "eval.rollout.run_group")
    assert not would("training.collect", "vla_policy.policy.VLAPolicy")
    assert not would("vla_policy.policy", "training.data.episodes.Dataset")
    assert not would("vla_policy.policy", "vla_policy.cli")
    assert would("eval.commands", "training.collect.collect")
    assert not would("eval.rollout", "training.bc.train")


@pytest.mark.parametrize("package", FOREIGN)
def test_packages_do_not_know_the_others_libraries(package: str) -> None:
    bad = [
        str(one)
        for one in IMPORTS
        if within(one.file, package) and not within(one.file, CLI) and one.target.split(".")[0] in FOREIGN[package]
    ]
    assert bad == []


def test_the_episode_schema_needs_numpy_only() -> None:
    outside = {one.target.split(".")[0] for one in IMPORTS if one.file == "training.data.episodes"} - set(
        sys.stdlib_module_names
    )
    assert outside == {"numpy"}


def test_counting_the_cores_needs_nothing() -> None:
    outside = {one.target.split(".")[0] for one in IMPORTS if one.file == "envs.cores"} - set(sys.stdlib_module_names)
    assert outside == set()


def test_the_command_line_imports_the_rest_lazily() -> None:
    # configs holds the classes that the command line's own options are made of.
    eager = [one for one in OURS if within(one.file, CLI) and not one.lazy]
    assert [str(one) for one in eager if not within(one.target, CLI) and not within(one.target, "configs")] == []


def test_only_the_policy_imports_variants() -> None:
    bad = []
    for one in OURS:
        parts = one.target.split(".")
        if not within(one.file, "vla_policy") or parts[0] != "vla_policy" or parts[1] not in VARIANTS:
            continue
        if one.file != "vla_policy.policy" and not within(one.file, f"vla_policy.{parts[1]}"):
            bad.append(str(one))
    assert bad == []


def test_variants_import_shared_layers_and_never_each_other() -> None:
    """A folder's `__init__` names its variants; a variant imports no sibling variant of its folder's table."""
    bad = []
    for one in OURS:
        folder = next((v for v in VARIANTS if within(one.file, f"vla_policy.{v}")), None)
        if folder is None or within(one.target, f"vla_policy.{folder}"):
            continue
        shared = one.target.split(".")[1]
        if shared in VARIANTS or shared in ("policy", "checkpoint", "cli"):
            bad.append(str(one))
    assert bad == []
    for folder in VARIANTS:
        table = [one for one in OURS if one.file == f"vla_policy.{folder}"]
        variants = {one.target.rsplit(".", 1)[0] for one in table if within(one.target, f"vla_policy.{folder}")}
        crossed = [
            str(one)
            for one in OURS
            if one.file in variants
            and any(within(one.target, v) for v in variants)
            and not within(one.target, one.file)
        ]
        assert crossed == []


def test_nothing_hides_the_builtin_eval() -> None:
    bare = [one for path in FILES for one in read(path) if one.target == "eval"]
    assert [str(one) for one in bare] == []


def test_product_code_imports_no_tests() -> None:
    assert [str(one) for one in IMPORTS if one.target.split(".")[0] in ("tests", "pytest")] == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("vla_policy.policy", "mujoco gymnasium envs training eval"),
        ("vla_policy.checkpoint", "mujoco gymnasium envs training eval"),
        ("envs.tabletop.tasks", "torch transformers vla_policy training eval"),
        ("training.collect", "torch mujoco vla_policy training eval"),
        ("training.data.batches", "mujoco eval"),
        ("vla_policy.cli", "torch mujoco gymnasium transformers"),
    ],
)
def test_what_an_import_brings_along(module: str, absent: str) -> None:
    code = f"import sys, {module}; print(*(set({absent.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
