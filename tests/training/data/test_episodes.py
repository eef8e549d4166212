"""The dataset folder: what is written is read back, nothing half-written has a name, and every damage is noticed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.array_file import ArrayFile
from training.data.episodes import (
    ARRAYS,
    GOAL_LABELS,
    HEADER,
    LABELS,
    SCHEMA_VERSION,
    Dataset,
    DatasetError,
    Episode,
    open_all,
    open_dataset,
)
from training.data.writer import COPIED_ROWS, DatasetWriter, merge_datasets, write_dataset

INFO = {
    "task": "track",
    "cameras": ["front", "wrist"],
    "action_names": ["dx", "dy"],
    "agent_pos_names": ["x", "y", "z"],
    "control_hz": 20,
    "failures": 2,
}
PER_STEP = ("pixels", "agent_pos", "action", "executed", "planned", "boxes", "visible")


def episode(seed: int, length: int) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        seed=seed,
        instructions=(f"track the ball number {seed}", None, "track the cube"),
        target=seed % 3 and 2,
        success=True,
        pixels=rng.integers(0, 256, (length, 2, 16, 16, 3), dtype=np.uint8),
        agent_pos=rng.normal(size=(length, 3)).astype(np.float32),
        action=rng.uniform(-1, 1, (length, 3, 4, 2)).astype(np.float32),
        executed=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        boxes=rng.uniform(size=(length, 2, 3, 4)).astype(np.float32),
        visible=rng.uniform(size=(length, 2, 3)) > 0.3,
        events=np.array([(0, length), (0, 1), (1, length)]),
    )


EPISODES = [episode(3, 5), episode(11, 1), episode(7, 8)]


def with_all(one: Episode) -> Episode:
    """With the files that may be missing."""
    planned = np.random.default_rng(one.seed).integers(0, 5, one.action.shape[:2])
    return replace(one, planned=planned, goal_boxes=one.boxes, goal_visible=one.visible)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    write_dataset(path, EPISODES, INFO)
    return path


def check(dataset: Dataset, episodes: list[Episode]) -> None:
    assert dataset.episodes == len(episodes)
    assert dataset.steps == sum(map(len, episodes))
    assert dataset.instructions == [list(e.instructions) for e in episodes]
    assert dataset.texts == [text for e in episodes for text in e.instructions if text is not None]
    np.testing.assert_array_equal(dataset.arrays["seeds"], [e.seed for e in episodes])
    np.testing.assert_array_equal(dataset.arrays["targets"], [e.target for e in episodes])
    np.testing.assert_array_equal(dataset.arrays["events"], [e.events for e in episodes])
    offsets = dataset.arrays["offsets"]
    for index, one in enumerate(episodes):
        for name in PER_STEP:
            if getattr(one, name) is None:
                assert name not in dataset.arrays
                continue
            np.testing.assert_array_equal(dataset.arrays[name][offsets[index] : offsets[index + 1]], getattr(one, name))
    for name, array in dataset.arrays.items():
        assert array.dtype == np.dtype(ARRAYS[name])


def test_round_trip(folder: Path) -> None:
    dataset = open_dataset(folder)
    check(dataset, EPISODES)
    assert dataset.path == folder
    assert {name: dataset.header[name] for name in INFO} == INFO
    assert dataset.header["schema_version"] == SCHEMA_VERSION
    assert dataset.labelled
    assert not dataset.goals
    assert dataset.interface.cameras == ("front", "wrist")
    assert dataset.interface.control_hz == 20


def test_where_nobody_labelled_anything_there_are_no_boxes(tmp_path: Path) -> None:
    bare = [replace(one, boxes=None, visible=None) for one in EPISODES]
    write_dataset(tmp_path / "data", bare, INFO)
    found = open_dataset(tmp_path / "data")
    check(found, bare)
    assert not found.labelled
    assert set(found.arrays) == set(ARRAYS) - {"planned"} - set(LABELS) - set(GOAL_LABELS)


def test_boxes_of_where_things_are_to_go_may_be_there(tmp_path: Path) -> None:
    full = [with_all(one) for one in EPISODES]
    write_dataset(tmp_path / "data", full, INFO)
    found = open_dataset(tmp_path / "data")
    check(found, full)
    assert found.goals
    assert set(found.arrays) == set(ARRAYS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": None, "visible": None}, "boxes must be there in all episodes or in none"),
        ({"boxes": None}, "boxes and visible must both be there or neither"),
        ({"goal_boxes": EPISODES[1].boxes}, "goal_boxes and goal_visible must both be there or neither"),
        (
            {"boxes": None, "visible": None, "goal_boxes": EPISODES[1].boxes, "goal_visible": EPISODES[1].visible},
            "only beside boxes",
        ),
        (
            {"goal_boxes": EPISODES[1].boxes, "goal_visible": EPISODES[1].visible},
            "goal_boxes must be there in all episodes or in none",
        ),
        ({"pixels": np.zeros((1, 2, 16, 16, 3), np.float32)}, "pixels are float32, expected uint8"),
        ({"pixels": np.zeros((1, 2, 0, 0, 3), np.uint8)}, r"pixels are \(1, 2, 0, 0, 3\), expected pictures of one"),
        ({"pixels": np.zeros((1, 2, 16, 16), np.uint8)}, r"pixels are \(1, 2, 16, 16\), expected pictures of one"),
        ({"pixels": np.zeros((1, 2, 16, 16, 1), np.uint8)}, "expected pictures of one pixel or more"),
        (
            {"agent_pos": np.zeros((2, 3), np.float32)},
            r"agent_pos \(2, 3\) must have 2 axes, of which the first is 1 steps",
        ),
        ({"executed": np.full((1, 2), 1.5, np.float32)}, r"executed must lie in \[-1, 1\]"),
        ({"action": np.full((1, 3, 4, 2), np.nan, np.float32)}, r"action must lie in \[-1, 1\]"),
        ({"executed": np.zeros((1, 3), np.float32)}, r"executed\.npy: got rows of \(3,\), the first ones were \(2,\)"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_at_once(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data") as writer:
        writer.add(EPISODES[0])
        with pytest.raises(DatasetError, match=words):
            writer.add(replace(EPISODES[1], **change))


def test_what_version_2_wrote_is_read(folder: Path) -> None:
    header = json.loads((folder / HEADER).read_text())
    for name in ("sha256", "control_hz"):
        del header[name]
    (folder / HEADER).write_text(json.dumps({**header, "schema_version": 2}))
    found = open_dataset(folder)
    check(found, EPISODES)
    assert found.interface.control_hz is None


def test_memory_does_not_grow_with_the_episodes(tmp_path: Path) -> None:
    """What was added is on the disk before the next episode comes."""
    with DatasetWriter(tmp_path / "data") as writer:
        for one in EPISODES:
            before = sum(file.stat().st_size for file in (tmp_path / "data.partial").iterdir())
            writer.add(episode(one.seed, 400))
            for file in writer._files.values():
                file._file.flush()
            after = sum(file.stat().st_size for file in (tmp_path / "data.partial").iterdir())
            assert after - before > 400 * 2 * 16 * 16 * 3
        writer.finish(INFO)
    assert open_dataset(tmp_path / "data").steps == 1200


def test_a_long_dataset_is_joined_piece_by_piece(tmp_path: Path) -> None:
    long = [[episode(seed, COPIED_ROWS + 7), episode(seed + 1, 3)] for seed in (1, 3)]
    for i, part in enumerate(long):
        write_dataset(tmp_path / f"part{i}", part, INFO)
    merge_datasets(tmp_path / "data", [open_dataset(tmp_path / f"part{i}") for i in range(2)], INFO)
    check(open_dataset(tmp_path / "data"), [*long[0], *long[1]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": None}, "field 'task' is missing"),
        ({"control_hz": None}, "field 'control_hz' is missing"),
        ({"cameras": None}, "field 'cameras' is missing"),
        ({"cameras": "front"}, "cameras 'front' must be a list of names"),
        ({"action_names": ["dx", "dx"]}, r"action_names \['dx', 'dx'\] must name each once"),
        ({"agent_pos_names": []}, r"agent_pos_names \[\] must be one or more names"),
        ({"control_hz": "20"}, "control_hz '20' must be a number"),
        ({"control_hz": -1}, "control_hz -1.0 must be a number from 0.001"),
    ],
)
def test_a_header_that_does_not_describe_the_robot_is_not_written(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    header = {name: value for name, value in {**INFO, **change}.items() if value is not None}
    with pytest.raises(DatasetError, match=words):
        write_dataset(tmp_path / "data", EPISODES, header)
    assert not (tmp_path / "data").exists()


def test_arrays_stay_on_disk_and_cannot_be_written(folder: Path) -> None:
    pixels = open_dataset(folder).arrays["pixels"]
    assert isinstance(pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_the_table_of_files_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_dataset(folder, [with_all(one) for one in EPISODES], INFO)
    assert {file.name for file in folder.iterdir()} == {HEADER, *(f"{name}.npy" for name in ARRAYS)}
    listed = json.loads((folder / HEADER).read_text())["files"]
    assert set(listed) == {f"{name}.npy" for name in ARRAYS}
    for name, entry in listed.items():
        assert entry["bytes"] == (folder / name).stat().st_size
        assert len(entry["sha256"]) == 64


def test_same_episodes_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "again", EPISODES, INFO)
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_merging_is_writing_all_at_once(folder: Path, tmp_path: Path) -> None:
    for index, one in enumerate(EPISODES):
        write_dataset(tmp_path / f"part{index}", [one], INFO)
    parts = [open_dataset(tmp_path / f"part{index}") for index in range(len(EPISODES))]
    merge_datasets(tmp_path / "merged", parts, INFO)
    check(open_dataset(tmp_path / "merged"), EPISODES)
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "merged" / file.name).read_bytes()


def test_nothing_has_the_name_before_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    real, saved = ArrayFile.append, []

    def append(file: ArrayFile, rows: np.ndarray) -> None:
        if len(saved) == 14:  # in the second of three episodes
            raise OSError("no space left on device")
        saved.append(file)
        real(file, rows)

    with monkeypatch.context() as patch:
        patch.setattr(ArrayFile, "append", append)
        with pytest.raises(OSError, match="no space"):
            write_dataset(path, EPISODES, INFO)
    assert not path.exists()
    with pytest.raises(DatasetError, match="no dataset here"):
        open_dataset(path)
    assert list(tmp_path.iterdir()) == []
    # What a killed call left before its first whole episode is no obstacle, and does not get in.
    (tmp_path / "data.partial").mkdir()
    (tmp_path / "data.partial" / "stray.npy").write_bytes(b"stray")
    write_dataset(path, EPISODES, INFO)
    check(open_dataset(path), EPISODES)
    assert list(tmp_path.iterdir()) == [path]
    assert not (path / "stray.npy").exists()


def test_a_complete_dataset_is_never_overwritten(folder: Path) -> None:
    with pytest.raises(DatasetError, match="is there already"):
        write_dataset(folder, [episode(1, 2)], INFO)
    check(open_dataset(folder), EPISODES)


def test_nothing_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{tmp_path / 'data'}: no episode to write"):
        write_dataset(tmp_path / "data", [], INFO)


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: no dataset here; make one with `vla collect`"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(DatasetError, match="file: no dataset here"):
        open_dataset(tmp_path / "file")


def test_several_folders_of_which_each_has_some_of_the_tasks(tmp_path: Path) -> None:
    for name in ("first/reach", "first/track", "second/track"):
        write_dataset(tmp_path / name, [episode(1, 2)], {**INFO, "task": name.split("/")[1]})
    folders = [tmp_path / "first", tmp_path / "second"]
    opened = open_all(folders, ["reach", "track"])
    assert [data.path.relative_to(tmp_path).as_posix() for data in opened] == [
        "first/reach",
        "first/track",
        "second/track",
    ]
    both = [tmp_path / "first" / "reach", tmp_path / "second" / "track"]
    assert [data.path for data in open_all(both, ["push"])] == both  # datasets may be of any task
    with pytest.raises(DatasetError, match=r"first, .*second: no dataset of push in any of them"):
        open_all(folders, ["track", "push"])
    with pytest.raises(DatasetError, match="third: has no dataset of track"):
        open_all([*folders, tmp_path / "third"], ["track"])
    with pytest.raises(DatasetError, match="second/reach: no dataset here"):
        open_all(folders[1:], ["reach"])


def test_a_moved_dataset_is_the_same_dataset(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    check(open_dataset(tmp_path / "elsewhere"), EPISODES)
