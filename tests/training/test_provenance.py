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
from training.provenance import collection_seeds, provenance


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


def test_seeds_of_all_that_was_learned_from_and_of_nothing_else() -> None:
    data = [{"collection": {"seed": 1}}, {"collection": {"seed": 501}}, {"collection": None}, {}]
    assert collection_seeds({"data": data, "start": {"collection_seeds": [0, 501]}}) == {0, 1, 501}
    assert collection_seeds({}) == set()
    # Of a checkpoint that somebody else wrote.
    for wrong in ("x", 3, [1, "x", [2]], {"seed": 4}):
        assert collection_seeds({"data": wrong, "start": wrong}) == set()
        assert collection_seeds({"data": [{"collection": wrong}], "start": {"collection_seeds": "12"}}) <= {4}
