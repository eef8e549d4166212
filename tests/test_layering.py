"""Who may import whom: the table of the architecture, held by reading the imports of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("encoders", "fusion", "language", "grounding", "heads")

# configs ← envs, vla_policy ← training ← eval: what a package may import of ours besides itself.
ALLOWED: dict[str, tuple[str, ...]] = {
    "configs": (),
    "envs": ("configs",),
    "vla_policy": ("configs",),
    "training": ("configs", "envs", "vla_policy"),
    "eval": ("configs", "envs", "vla_policy", "training"),
}
PACKAGES = tuple(ALLOWED)
# What a package must not know of other people's.
FOREIGN: dict[str, tuple[str, ...]] = {
    "configs": ("torch", "transformers", "accelerate", "mujoco", "gymnasium", "OpenGL", "numpy"),
    "envs": ("torch", "transformers", "accelerate"),
    "vla_policy": ("mujoco", "gymnasium", "OpenGL"),
}
# And what it may know inside functions alone.
LAZY: dict[str, tuple[str, ...]] = {"training": ("mujoco", "OpenGL")}
# What an import of these brings along must not be heavy: every command begins with it.
LIGHT = ("vla_policy.cli", "configs.commands", "configs.memory", "configs.names")


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
    return any(within(one.target, package) for package in (own, *ALLOWED[own]))


def test_the_files_are_read() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)
    assert len(OURS) > 50


def test_packages_import_only_those_to_their_left() -> None:
    assert [str(one) for one in OURS if not allowed(one)] == []


def test_the_check_would_notice() -> None:
    def would(file: str, target: str) -> bool:
        return allowed(Import(file=file, target=target, line=1, lazy=True))

    assert would("training.data.batches", "training.data.episodes.Dataset")
    assert would("training.collect", "envs.rollout.run")
    assert would("eval.commands", "training.commands.train_all")
    assert not would("training.bc", "eval.evaluate.evaluate")
    assert not would("vla_policy.runner", "envs.rollout.World")
    assert not would("envs.actors", "vla_policy.runner.PolicyRunner")
    assert not would("vla_policy.policy", "training.data.episodes.Dataset")
    assert not would("configs.run", "envs.task.find_task")


@pytest.mark.parametrize("package", FOREIGN)
def test_packages_do_not_know_the_others_libraries(package: str) -> None:
    assert [
        str(one) for one in IMPORTS if within(one.file, package) and one.target.split(".")[0] in FOREIGN[package]
    ] == []


@pytest.mark.parametrize("package", LAZY)
def test_some_libraries_are_for_functions_alone(package: str) -> None:
    eager = [one for one in IMPORTS if within(one.file, package) and not one.lazy]
    assert [str(one) for one in eager if one.target.split(".")[0] in LAZY[package]] == []


def test_the_episode_schema_needs_numpy_only() -> None:
    files = ("training.data.episodes", "training.data.writer")
    outside = {one.target.split(".")[0] for one in IMPORTS if one.file in files} - set(sys.stdlib_module_names)
    assert outside == {"numpy", "configs", "training"}


def test_counting_the_cores_needs_nothing() -> None:
    outside = {one.target.split(".")[0] for one in IMPORTS if one.file == "envs.cores"} - set(sys.stdlib_module_names)
    assert outside == set()


def test_the_command_line_imports_names_alone() -> None:
    eager = {one.target for one in OURS if one.file == "vla_policy.cli" and not one.lazy}
    assert eager == {"configs.commands.COMMANDS", "configs.names.unknown"}


def test_every_command_is_there() -> None:
    for name, command in COMMANDS.items():
        module, _, function = command.run.partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


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
        if folder is None or not within(one.target, "vla_policy") or within(one.target, f"vla_policy.{folder}"):
            continue
        shared = one.target.split(".")[1]
        if shared in VARIANTS or shared in ("policy", "checkpoint", "runner", "cli"):
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


def loaded(code: str) -> set[str]:
    """The packages that a new process has loaded after running some code."""
    report = "import sys; print('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("vla_policy.policy", "mujoco gymnasium envs training eval"),
        ("vla_policy.checkpoint", "mujoco gymnasium envs training eval"),
        ("vla_policy.runner", "mujoco gymnasium envs training eval"),
        ("vla_policy.server.client", "torch mujoco gymnasium envs training eval"),
        ("vla_policy.server.commands", "torch websockets msgpack envs training eval"),
        ("envs", "torch transformers mujoco OpenGL vla_policy training eval"),
        ("envs.rollout", "torch transformers mujoco OpenGL vla_policy training eval"),
        ("envs.tabletop.tasks", "torch transformers vla_policy training eval"),
        ("training.collect", "torch mujoco OpenGL vla_policy eval"),
        ("training.data.batches", "mujoco OpenGL eval"),
        ("training.commands", "torch mujoco OpenGL transformers"),
        ("eval.dagger", "torch mujoco OpenGL transformers scipy matplotlib"),
        ("eval.commands", "torch mujoco OpenGL transformers scipy matplotlib websockets msgpack"),
        ("eval.evaluate", "mujoco OpenGL scipy matplotlib transformers"),
        *((module, "torch mujoco gymnasium numpy transformers jsonargparse yaml") for module in LIGHT),
    ],
)
def test_what_an_import_brings_along(module: str, absent: str) -> None:
    assert sorted(loaded(f"import {module}") & set(absent.split())) == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["tasks"], ["train", "--help"], ["collect", "--help"], ["eval", "--help"]], ids=" ".join
)
def test_asking_is_quick(arguments: list[str]) -> None:
    code = f"""
from vla_policy.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
"""
    assert sorted(loaded(code) & {"torch", "mujoco", "OpenGL", "transformers", "scipy", "matplotlib"}) == []
