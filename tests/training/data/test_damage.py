"""Every damage of a dataset folder is noticed, in one line that names the file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.episodes import HEADER, SCHEMA_VERSION, Dataset, DatasetError, header_checksum, open_dataset


@pytest.fixture
def folder(write_small: Callable[..., Dataset]) -> Path:
    path: Path = write_small("data", lengths=(5, 4, 5), cameras=("front", "wrist")).path  # 14 steps
    return path


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
    (folder / HEADER).write_text((folder / HEADER).read_text().replace(" the ", " a "))
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
