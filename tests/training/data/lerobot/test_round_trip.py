"""What was exported comes back as it was, and what LeRobot reads of it means what it should."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from configs.lerobot import ImportConfig
from training.data.episodes import Dataset, DatasetError, Episode, open_dataset
from training.data.lerobot import export, layout
from training.data.lerobot.export import export_lerobot
from training.data.lerobot.ingest import import_lerobot
from training.data.writer import write_dataset

HEADER = {
    "task": "stack",
    "cameras": ["front", "wrist"],
    "action_names": ["dx", "dy"],
    "agent_pos_names": ["x", "y", "z"],
    "control_hz": 12.5,
    "failures": 2,
}


def episode(seed: int, length: int, *, goals: bool = False) -> Episode:
    rng = np.random.default_rng(seed)
    drift = np.linspace(0, 200, length * 2 * 24 * 24 * 3).reshape(length, 2, 24, 24, 3)
    boxes = {
        "boxes": rng.random((length, 2, 3, 4), np.float32),
        "visible": rng.random((length, 2, 3)) > 0.3,
    }
    return Episode(
        seed=seed,
        instructions=(f"track the ball number {seed}", None, "track the cube – quickly"),
        target=seed % 3 and 2,
        success=True,
        pixels=drift.astype(np.uint8),
        agent_pos=rng.normal(size=(length, 3)).astype(np.float32),
        action=rng.uniform(-1, 1, (length, 3, 4, 2)).astype(np.float32),
        executed=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        events=np.array([(0, length), (0, 1), (1, length)]),
        **boxes,
        **({f"goal_{name}": value for name, value in boxes.items()} if goals else {}),
        planned=rng.integers(0, 5, (length, 3)) if goals else None,
    )


def bare(seed: int, length: int, *, followed: bool) -> Episode:
    """One thing, one label a step, no boxes."""
    full = episode(seed, length)
    action = full.action[:, :1, :1]
    return replace(
        full,
        instructions=("follow",),
        target=0,
        action=action,
        executed=action[:, 0, 0] if followed else full.executed,
        boxes=None,
        visible=None,
        events=full.events[:1],
    )


@pytest.fixture(params=["planned", "goals", "bare", "disturbed"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    kinds: dict[str, Callable[[int, int], Episode]] = {
        "planned": episode,
        "goals": lambda seed, length: episode(seed, length, goals=True),
        "bare": lambda seed, length: bare(seed, length, followed=True),
        "disturbed": lambda seed, length: bare(seed, length, followed=False),
    }
    make = kinds[request.param]
    write_dataset(tmp_path / "data", [make(3, 5), make(11, 1), make(7, 8)], {**HEADER, "on_policy": True})
    return open_dataset(tmp_path / "data")


def test_png_brings_every_byte_back(data: Dataset, tmp_path: Path) -> None:
    export_lerobot(data, tmp_path / "out", pictures="png")
    back = import_lerobot(tmp_path / "out", tmp_path / "back", ImportConfig())
    assert back.header == data.header  # with the checksum of every file
    assert set(back.arrays) == set(data.arrays)


def test_video_changes_pictures_alone_and_those_little(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "VIDEO_MB", 0)  # a file for every episode
    monkeypatch.setattr(layout, "DATA_MB", 0)
    monkeypatch.setattr(export, "FLUSHED", 2)
    export_lerobot(data, tmp_path / "out")
    assert len(list((tmp_path / "out/videos/observation.images.wrist").rglob("*.mp4"))) == 3
    assert len(list((tmp_path / "out/data").rglob("*.parquet"))) == 3
    assert len(list((tmp_path / "out/meta/episodes").rglob("*.parquet"))) == 2
    back = import_lerobot(tmp_path / "out", tmp_path / "back", ImportConfig())
    for name, array in data.arrays.items():
        if name == "pixels":
            error = np.abs(array.astype(int) - back.arrays[name])
            assert error.mean() < 2
            assert error.max() < 30
        else:
            assert np.array_equal(back.arrays[name], array), name
    assert {k: v for k, v in back.header.items() if k not in ("files", "sha256")} == {
        k: v for k, v in data.header.items() if k not in ("files", "sha256")
    }


def test_what_lerobot_reads(data: Dataset, tmp_path: Path) -> None:
    export_lerobot(data, tmp_path / "out", pictures="png")
    info = json.loads((tmp_path / "out" / layout.INFO).read_text())
    assert info["fps"] == 12.5
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["dx", "dy"]}
    frames = parquet.read_table(tmp_path / "out/data/chunk-000/file-000.parquet").to_pydict()
    offsets, targets = data.arrays["offsets"], data.arrays["targets"]
    tasks = layout.read_tasks(tmp_path / "out")
    for number in range(data.episodes):
        rows = slice(offsets[number], offsets[number + 1])
        label = data.arrays["action"][rows, targets[number], 0]
        assert np.array_equal(np.array(frames["action"][rows], np.float32), label)
        assert frames["episode_index"][rows] == [number] * len(label)
        told = data.instructions[number][targets[number]]
        assert {tasks[index] for index in frames["task_index"][rows]} == {told}
    assert frames["index"] == list(range(data.steps))
    labels = np.array(frames["action"], np.float64)
    found = json.loads((tmp_path / "out" / layout.STATS).read_text())["action"]
    for name, expected in (
        ("min", labels.min(0)),
        ("max", labels.max(0)),
        ("mean", labels.mean(0)),
        ("std", labels.std(0)),
    ):
        assert np.allclose(found[name], expected, atol=1e-6), name
    assert found["count"] == [data.steps]


def test_it_is_whole_or_not_there(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_lerobot(data, tmp_path / "out", on_progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="is there already"):
        export_lerobot(data, tmp_path / "out")


def test_a_second_import_goes_on(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", [episode(3, 5), episode(11, 1), episode(7, 8)], HEADER)
    data = open_dataset(tmp_path / "data")
    export_lerobot(data, tmp_path / "out", pictures="png")

    def stop(done: int, _: int) -> None:
        if done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_lerobot(tmp_path / "out", tmp_path / "back", ImportConfig(), on_progress=stop)
    assert import_lerobot(tmp_path / "out", tmp_path / "back", ImportConfig()).header == data.header


def test_quantiles() -> None:
    from training.data.lerobot.statistics import Histogram, PictureHistogram

    rng = np.random.default_rng(0)
    values = rng.normal([5.0, -1000.0], [1.0, 0.01], (20_000, 2))
    spread = Histogram(values.min(0), values.max(0))
    for part in np.split(values, 4):
        spread.add(part)
    found = spread.describe()
    for name, q in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        assert np.allclose(found[name], np.quantile(values, q, axis=0), atol=np.ptp(values, axis=0) / 1000), name
    assert np.allclose(found["std"], values.std(0), rtol=1e-6)
    pictures = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    histogram = PictureHistogram()
    histogram.add(pictures)
    described = histogram.describe()
    share = pictures.reshape(-1, 3) / 255
    assert np.allclose(np.reshape(described["mean"], 3), share.mean(0))
    assert np.allclose(np.reshape(described["std"], 3), share.std(0))
    assert np.allclose(np.reshape(described["q50"], 3), np.quantile(share, 0.5, axis=0), atol=2 / 255)
    assert np.shape(described["min"]) == (3, 1, 1)
