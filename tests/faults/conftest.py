"""What goes wrong outside the program: other processes, full disks, little memory, signals, damaged files.

Tests here do what happened to a user. Those that start whole trainings or collections are marked `long` as well, and
run by `make faults` alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

Vla = Callable[..., "subprocess.Popen[str]"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = "faults" in str(config.getoption("markexpr"))
    for item in items:
        if Path(str(item.path)).is_relative_to(HERE):
            item.add_marker(pytest.mark.faults)
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.timeout(1800))
                if not asked:
                    item.add_marker(pytest.mark.skip(reason="long; `make faults` runs it"))


@pytest.fixture
def environment() -> dict[str, str]:
    """For processes that import this copy of the code."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes with pipes to them; those that a test leaves running are killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen(
                command,
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def vla(start: Callable[..., subprocess.Popen[str]]) -> Vla:
    """Starts `vla` with these arguments in a process of its own."""
    return lambda *arguments: start(sys.executable, "-m", "vla_policy.cli", *arguments)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of so many bytes ("4m"); asked again, it changes the size of the same one."""
    folder = tmp_path / "disk"

    def mount(size: str) -> Path:
        options = f"size={size}"
        if folder.exists():
            options = f"remount,{options}"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("needs the right to mount a file system")
        return folder

    yield mount
    if folder.exists():
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)
