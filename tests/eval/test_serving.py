"""A server that is measured, and one that is judged from another process, as the documentation does it."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.serving import ServeConfig
from eval.serving import LoadError, serving_load
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main
from vla_policy.server.client import RemoteError
from vla_policy.server.serving import PolicyServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def address(tiny_checkpoint: Path) -> Iterator[str]:
    """Of a server in a thread."""
    ready, told = threading.Event(), list[Any]()

    async def run() -> None:
        stop = asyncio.Event()
        told.extend([asyncio.get_running_loop(), stop])

        def listening(where: str) -> None:
            told.append(where)
            ready.set()

        await server.run(listening, stop)

    server = PolicyServer(load_checkpoint(tiny_checkpoint), "tiny", ServeConfig(port=0))
    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(30)
    loop, stop, where = told
    yield where
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)


def test_clients_under_load_get_what_they_get_alone(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = serving_load(str(tiny_checkpoint), 10, 0.3)
    assert [row["clients"] for row in found["clients"]] == [1, 10]
    for row in found["clients"]:
        latency = row["latency_ms"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
        assert row["decisions"] >= row["clients"]
        assert row["largest_difference_from_alone"] < 1e-6
    assert found["clients"][1]["rows_per_forward_pass"] > 1


def test_a_measurement_that_cannot_be_is_one_line(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="--clients 0 must be at least 1"):
        serving_load(str(tiny_checkpoint), 0, 1.0)
    assert main(["bench", "--serve", "default", "--tasks", "track"]) == 2
    assert "leave --tasks and --expert out" in capsys.readouterr().err
    assert main(["bench", "--serve", "default", "--seconds", "0"]) == 2
    assert "--seconds 0 must be above 0" in capsys.readouterr().err
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(LoadError, match="the server does not start"):
        serving_load(str(tiny_checkpoint), 1, 1.0)


def test_the_example_judges_a_served_policy(address: str) -> None:
    spec = importlib.util.spec_from_file_location("judge_remote", ROOT / "docs" / "examples" / "judge_remote.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert len(example.judge(address, "track", 1)) == 1
    with pytest.raises(ValueError, match="'push' needs action"):
        example.judge(address, "push", 1)
    with pytest.raises(RemoteError, match="no policy server answers"):
        example.judge("ws://127.0.0.1:1", "track", 1)


def test_the_page_s_client_works(address: str) -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"np": np}
    exec(compile(example.replace("ws://127.0.0.1:8000", address), "serving.md", "exec"), names)
    about = names["policy"].metadata
    assert names["actions"].shape == (about["chunk"], len(about["action_names"]))
