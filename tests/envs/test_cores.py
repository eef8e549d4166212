"""The number of cores follows what this process may use, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envs.cores import usable_cores


@pytest.mark.parametrize(
    ("content", "most"), [("max 100000\n", 8), ("150000 100000\n", 2), ("10000 100000\n", 1), (None, 8)]
)
def test_a_containers_quota_limits_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, most: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    file = tmp_path / "cpu.max"
    if content is not None:
        file.write_text(content)
    assert usable_cores(file) == most


def test_so_does_the_affinity_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert usable_cores(tmp_path / "missing") == 2
    (tmp_path / "cpu.max").write_text("1600000 100000\n")
    assert usable_cores(tmp_path / "cpu.max") == 2
