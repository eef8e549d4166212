import json
import platform
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from training import provenance as module
from training.data.episodes import Dataset
from training.provenance import provenance


def test_it_names_settings_data_and_versions(write_small: Callable[..., Dataset]) -> None:
    data = [write_small("a"), write_small("b", seed=2, task="reach")]
    record = provenance({"seed": 3}, data)
    assert json.loads(json.dumps(record)) == record
    assert record["settings"] == {"seed": 3}
    assert [d["task"] for d in record["data"]] == ["track", "reach"]
    assert [d["episodes"] for d in record["data"]] == [4, 4]
    assert record["data"][0]["pixels_sha256"] != record["data"][1]["pixels_sha256"]
    assert record["versions"]["python"] == platform.python_version()
    assert record["versions"]["torch"] == version("torch")
    assert torch.__version__.startswith(record["versions"]["torch"].split("+")[0])
    assert datetime.fromisoformat(record["created"]).tzinfo is not None


def test_outside_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance({}, [])["commit"] == ""


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance({}, [])["commit"] == ""
