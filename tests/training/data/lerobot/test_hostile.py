"""Datasets that somebody made to do harm, or that broke in an unusual way: one line, and nothing is left behind."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from configs.lerobot import ImportConfig
from training.data.episodes import Dataset, open_dataset
from training.data.lerobot import layout
from training.data.lerobot.export import export_lerobot
from training.data.lerobot.ingest import import_lerobot
from training.data.writer import DatasetWriter
from vla_policy.cli import main

WriteForeign = Callable[..., Path]
DATA = "data/chunk-000/file-001.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def described(root: Path, file: str, *way: str | int, value: Any) -> None:
    """Put a value into a JSON file."""
    content = inner = json.loads((root / file).read_text())
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = value
    (root / file).write_text(json.dumps(content))


def rewrite(file: Path, name: str, values: Any, *, again: bool = False) -> None:
    """Put other values into a column of a Parquet file, or beside it under the same name."""
    table, column = parquet.read_table(file), pyarrow.array(values)
    place = table.schema.get_field_index(name)
    parquet.write_table(table.append_column(name, column) if again else table.set_column(place, name, column), file)


def bomb() -> bytes:
    """A picture of few bytes and very many pixels."""
    file = io.BytesIO()
    Image.new("1", (layout.LARGEST + 8, 16)).save(file, format="PNG")
    return file.getvalue()


FEATURES = ("features", "observation.state", "shape")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: described(root, layout.INFO, "fps", value=10**400), "info.json: fps 1000"),
        (
            lambda root: described(root, layout.INFO, "data_path", value="{chunk_index:>9000000000}"),
            "is no path, for its '{'",
        ),
        (lambda root: described(root, layout.INFO, "data_path", value="{chunk_index.real}"), "is no path"),
        (lambda root: described(root, layout.INFO, *FEATURES, value=[10**9]), "expected 8192 at most"),
        (lambda root: rewrite(root / layout.TASKS, "task_index", [0, 1], again=True), "two columns 'task_index'"),
        (lambda root: rewrite(root / DATA, "index", list(range(9)), again=True), "two columns 'index'"),
        (lambda root: rewrite(root / DATA, "episode_index", [np.inf] * 9), "expected whole numbers"),
        (lambda root: rewrite(root / DATA, "frame_index", [True] * 9), "expected whole numbers"),
        (lambda root: rewrite(root / DATA, "timestamp", [1e300] * 9), "'timestamp' has values that are not finite"),
        (lambda root: rewrite(root / DATA, "timestamp", [1e30] * 9), "not readable as a video"),
        (lambda root: rewrite(root / DATA, "observation.state", [[1e300] * 3] * 9), "values that are not finite"),
        (
            lambda root: rewrite(root / DATA, "observation.images.wrist", [{"bytes": bomb(), "path": ""}] * 9),
            "8200 x 16 pixels",
        ),
        (lambda root: rewrite(root / EPISODES, "length", [6, 10**6, 4]), "need .* of memory, .* lower --size"),
        (lambda root: rewrite(root / EPISODES, "length", [6.0, np.nan, 4.0]), "length is 6.0, expected a whole"),
        (lambda root: rewrite(root / EPISODES, "data/file_index", [0, -1, 2]), "data/file_index is -1"),
        (
            lambda root: rewrite(root / EPISODES, "length", pyarrow.array([-(2**60)] * 3, pyarrow.date64())),
            "'length' is not readable",
        ),
    ],
)
def test_a_dataset_is_one_line(
    write_foreign: WriteForeign,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], Any],
    message: str,
) -> None:
    monkeypatch.setattr("training.data.lerobot.ingest.available_memory", lambda: 10**9)
    root = write_foreign()
    damage(root)
    assert main(["data", "import", str(root), "--out", str(tmp_path / "out"), "--size", "16"]) == 2
    [line] = [text for text in capsys.readouterr().err.splitlines() if text.startswith("vla:")]
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: described(root, layout.OURS, "header", "task", value=7), "task 7 must be a name"),
        (lambda root: described(root, layout.OURS, "header", "cameras", value=5), "cameras 5 must be a list"),
        (lambda root: described(root, layout.OURS, "header", "control_hz", value=1e300), "control_hz 1e.300"),
        (
            lambda root: described(root, layout.OURS, "header", "agent_pos_names", value=["a", "b"]),
            "agent_pos has 3 of agent_pos_names, the header names 2",
        ),
        (
            lambda root: described(root, layout.OURS, "header", "action_scale", value={"low": [0], "high": [1]}),
            "action_scale goes from",
        ),
        (lambda root: described(root, layout.INFO, "features", "vla.visible", "shape", value=[3]), "must have 3 axes"),
        (lambda root: rewrite(root / EPISODES, "vla.seed", [-1] * 4), "its seed must be a whole number"),
        (lambda root: rewrite(root / EPISODES, "vla.events", [[[0, 99]] * 3] * 4), "must be parts of its 12 steps"),
        (lambda root: rewrite(root / EPISODES, "vla.events", [[[np.inf, 1]] * 3] * 4), "has lost columns"),
    ],
)
def test_what_was_ours_and_changed_is_one_line(
    write_small: Callable[..., Dataset],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], Any],
    message: str,
) -> None:
    export_lerobot(write_small(), tmp_path / "lerobot", pictures="png")
    damage(tmp_path / "lerobot")
    assert main(["data", "import", str(tmp_path / "lerobot"), "--out", str(tmp_path / "out")]) == 2
    [line] = [text for text in capsys.readouterr().err.splitlines() if text.startswith("vla:")]
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", ["source", "options"])
def test_an_import_does_not_go_on_with_another_dataset(
    write_foreign: WriteForeign,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    other: str,
) -> None:
    root, out = write_foreign(), tmp_path / "out"
    import_lerobot(root, tmp_path / "whole", ImportConfig(size=16))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DatasetWriter, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_lerobot(root, out, ImportConfig(size=16))
    if other == "source":
        again = ImportConfig(size=16)
        root = write_foreign("others/drawers")
        rewrite(root / layout.TASKS, "__index_level_0__", ["push", "pull"])
    else:
        again = ImportConfig(size=16, instruction="open it")
    with pytest.raises(ValueError, match="holds 4 whole episodes with another header or from elsewhere"):
        import_lerobot(root, out, again)
    import_lerobot(tmp_path / "drawers", out, ImportConfig(size=16))
    assert open_dataset(out).header["files"] == open_dataset(tmp_path / "whole").header["files"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (".", "has no name"),
        ("link", "is a link to /nowhere/at/all"),
        ("file/in", "a file is where a folder is to be"),
        ("/proc/new", "no such file or directory"),
    ],
)
def test_places_where_nothing_can_be(
    write_small: Callable[..., Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("/nowhere/at/all", "link")
    Path("file").write_text("mine")
    assert main(["data", "export", str(write_small().path), "--out", place]) == 2
    assert message in capsys.readouterr().err
    assert Path("file").read_text() == "mine"
    assert main(["data", "export", "", "--out", "new"]) == 2
    assert capsys.readouterr().err == "vla: DATASET is empty; name a place\n"
