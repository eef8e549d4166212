"""The dataset folder: what is written is read back, nothing half-written has a name, and every damage is noticed."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.seeds import SEED_RANGE, SEED_STARTS, split_seed
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
    header_checksum,
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
PER_STEP = ("pixels", "agent_pos", "action", "executed", "boxes", "visible")


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
    assert set(found.arrays) == set(ARRAYS) - set(LABELS) - set(GOAL_LABELS)


def test_boxes_of_where_things_are_to_go_may_be_there(tmp_path: Path) -> None:
    full = [replace(one, goal_boxes=one.boxes, goal_visible=one.visible) for one in EPISODES]
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
    write_dataset(folder, [replace(one, goal_boxes=one.boxes, goal_visible=one.visible) for one in EPISODES], INFO)
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


# Damage. Each entry spoils a folder and returns the file whose name the error must hold.


def edit_header(change: Callable[[dict[str, Any]], Any], named: str = HEADER) -> Callable[[Path], str]:
    def damage(folder: Path) -> str:
        header = json.loads((folder / HEADER).read_text())
        change(header)
        header["sha256"] = header_checksum(header)
        (folder / HEADER).write_text(json.dumps(header))
        return named

    return damage


def changed_header(folder: Path) -> str:
    (folder / HEADER).write_text((folder / HEADER).read_text().replace("track the cube", "track the ball"))
    return HEADER


def unsigned_header(folder: Path) -> str:
    header = json.loads((folder / HEADER).read_text())
    del header["sha256"]
    (folder / HEADER).write_text(json.dumps(header))
    return HEADER


def listed_anew(folder: Path, name: str) -> str:
    """Make the header agree with what the file has become: damage that checksums cannot see."""
    import hashlib

    file = folder / name
    entry = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    edit_header(lambda header: header["files"].update({name: entry}))(folder)
    return name


def missing_header(folder: Path) -> str:
    (folder / HEADER).unlink()
    return HEADER


def garbled_header(folder: Path) -> str:
    (folder / HEADER).write_text((folder / HEADER).read_text()[:100])
    return HEADER


def binary_header(folder: Path) -> str:
    (folder / HEADER).write_bytes(b"\x93NUMPY\xff\xfe")
    return HEADER


def missing_array(folder: Path) -> str:
    (folder / "action.npy").unlink()
    return "action.npy"


def truncated(folder: Path) -> str:
    file = folder / "pixels.npy"
    file.write_bytes(file.read_bytes()[:-100])
    return "pixels.npy"


def appended(folder: Path) -> str:
    with (folder / "boxes.npy").open("ab") as stream:
        stream.write(b"\0")
    return "boxes.npy"


def empty(folder: Path) -> str:
    (folder / "seeds.npy").write_bytes(b"")
    return "seeds.npy"


def flipped_byte(folder: Path) -> str:
    file = folder / "pixels.npy"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return "pixels.npy"


def foreign_array(folder: Path) -> str:
    np.save(folder / "action.npy", np.zeros((14, 3, 4, 2), dtype=np.float32))
    return "action.npy"


def other_dtype(folder: Path) -> str:
    np.save(folder / "action.npy", np.zeros((14, 3, 4, 2), dtype=np.float64))
    return listed_anew(folder, "action.npy")


def other_length(folder: Path) -> str:
    np.save(folder / "action.npy", np.zeros((13, 3, 4, 2), dtype=np.float32))
    return listed_anew(folder, "action.npy")


def other_rank(folder: Path) -> str:
    np.save(folder / "agent_pos.npy", np.float32(1.0))
    return listed_anew(folder, "agent_pos.npy")


def pictures_of_nothing(folder: Path) -> str:
    np.save(folder / "pixels.npy", np.zeros((14, 2, 0, 0, 3), np.uint8))
    return listed_anew(folder, "pixels.npy")


def no_array_at_all(folder: Path) -> str:
    (folder / "visible.npy").write_bytes(b"hello, this is text\n" * 10)
    return listed_anew(folder, "visible.npy")


def empty_but_listed(folder: Path) -> str:
    (folder / "visible.npy").write_bytes(b"")
    return listed_anew(folder, "visible.npy")


class Trap:
    """Unpickling this would leave a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def pickled(folder: Path) -> str:
    (folder / "events.npy").write_bytes(pickle.dumps(Trap()))
    return listed_anew(folder, "events.npy")


def array_of_objects(folder: Path) -> str:
    np.save(folder / "events.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    return listed_anew(folder, "events.npy")


def wrong_offsets(folder: Path) -> str:
    np.save(folder / "offsets.npy", np.array([0, 6, 5, 14], dtype=np.int64))
    return listed_anew(folder, "offsets.npy")


def too_few_seeds(folder: Path) -> str:
    np.save(folder / "seeds.npy", np.array([1, 2], dtype=np.int64))
    return listed_anew(folder, "seeds.npy")


def too_few_events(folder: Path) -> str:
    np.save(folder / "events.npy", np.zeros((2, 3, 2), dtype=np.int64))
    return listed_anew(folder, "events.npy")


def too_few_objects(folder: Path) -> str:
    np.save(folder / "visible.npy", np.zeros((14, 2, 2), dtype=bool))
    return listed_anew(folder, "visible.npy")


def target_without_words(folder: Path) -> str:
    np.save(folder / "targets.npy", np.array([0, 1, 2], dtype=np.int64))
    return listed_anew(folder, "targets.npy")


def target_out_of_range(folder: Path) -> str:
    np.save(folder / "targets.npy", np.array([0, 3, 2], dtype=np.int64))
    return listed_anew(folder, "targets.npy")


DAMAGES = {
    "missing header": missing_header,
    "garbled header": garbled_header,
    "binary header": binary_header,
    "header is a list": lambda folder: (folder / HEADER).write_text("[]") and HEADER,
    "a changed header": changed_header,
    "no checksum": unsigned_header,
    "no rate": edit_header(lambda header: header.pop("control_hz")),
    "a name twice": edit_header(lambda header: header.update(action_names=["dx", "dx"])),
    "fewer names than actions": edit_header(lambda header: header.update(action_names=["dx"]), "action.npy"),
    "older schema": edit_header(lambda header: header.update(schema_version=1)),
    "newer schema": edit_header(lambda header: header.update(schema_version=SCHEMA_VERSION + 1)),
    "no schema": edit_header(lambda header: header.pop("schema_version")),
    "no task": edit_header(lambda header: header.pop("task")),
    "no file list": edit_header(lambda header: header.pop("files")),
    "unlisted file": edit_header(lambda header: header["files"].pop("boxes.npy")),
    "file list is a list": edit_header(lambda header: header.update(files=[])),
    "a file entry is a number": edit_header(lambda header: header["files"].update({"boxes.npy": 3})),
    "too few instructions": edit_header(lambda header: header["instructions"].pop()),
    "instructions are a number": edit_header(lambda header: header.update(instructions=3)),
    "an episode's instructions are a text": edit_header(lambda header: header["instructions"].__setitem__(1, "abc")),
    "an instruction is a number": edit_header(lambda header: header["instructions"][1].__setitem__(1, 3)),
    "too few texts in an episode": edit_header(lambda header: header["instructions"][1].pop()),
    "missing array": missing_array,
    "truncated array": truncated,
    "appended byte": appended,
    "empty array": empty,
    "flipped byte": flipped_byte,
    "foreign array": foreign_array,
    "other dtype": other_dtype,
    "other length": other_length,
    "other rank": other_rank,
    "pictures of nothing": pictures_of_nothing,
    "no array at all": no_array_at_all,
    "empty but listed": empty_but_listed,
    "pickle": pickled,
    "array of objects": array_of_objects,
    "wrong offsets": wrong_offsets,
    "too few seeds": too_few_seeds,
    "too few events": too_few_events,
    "too few objects": too_few_objects,
    "target without words": target_without_words,
    "target out of range": target_out_of_range,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_in_one_line_that_names_the_file(
    damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    name = DAMAGES[damage](folder)
    with pytest.raises(DatasetError) as caught:
        open_dataset(folder)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("sprung").exists()


def test_without_verification_sizes_and_shapes_are_still_checked(folder: Path) -> None:
    flipped_byte(folder)
    open_dataset(folder, verify=False)
    truncated(folder)
    with pytest.raises(DatasetError, match="truncated or overwritten"):
        open_dataset(folder, verify=False)


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: no dataset here; make one with `vla collect`"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(DatasetError, match="file: no dataset here"):
        open_dataset(tmp_path / "file")


def test_a_moved_dataset_is_the_same_dataset(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    check(open_dataset(tmp_path / "elsewhere"), EPISODES)


# Seeds.


def test_seeds_of_splits_never_meet() -> None:
    assert set(SEED_STARTS) == {"train", "validation", "test"}
    ranges = [(split_seed(split, 0), split_seed(split, SEED_RANGE - 1)) for split in SEED_STARTS]
    for (_, last), (first, _) in zip(sorted(ranges)[:-1], sorted(ranges)[1:], strict=True):
        assert last < first
    assert all(last - first == SEED_RANGE - 1 for first, last in ranges)
    assert split_seed("test", 5) - split_seed("test", 0) == 5


@pytest.mark.parametrize(("split", "index"), [("tset", 0), ("train", -1), ("train", SEED_RANGE)])
def test_seeds_outside_a_split_are_refused(split: str, index: int) -> None:
    with pytest.raises(ValueError, match=r"must be one of train, validation, test|must lie between 0 and 99999999"):
        split_seed(split, index)
