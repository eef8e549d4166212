"""Episodes and the dataset folder: what was seen, done and said, with labels where there are any. NumPy only.

A dataset is a folder of memory-mapped arrays and one `header.json`, which is written last. Where an expert plans for
every thing of a scene, all that depends on what the words mean is there for each of them: one demonstration then
teaches what each of the scene's instructions would have asked for, and where the gripper is says nothing about which
one is read. Where the hand moves things, most of the labels are unknown: `planned` says which are there. Elsewhere
there is one thing, the one that was meant, and one label per step: a chunk is then the labels of successive steps. N
steps, E episodes, V cameras, O things (fewer are padded with zeros), S steps of a plan, P proprioception and A action
dimensions:

| file | shape | content |
|---|---|---|
| `pixels.npy` | (N, V, H, W, 3) uint8 | what the cameras saw before the step |
| `agent_pos.npy` | (N, P) float32 | proprioception before the step |
| `executed.npy` | (N, A) float32 | what was done, in [-1, 1] |
| `action.npy` | (N, O, S, A) float32 | the labels: from this step on, the expert's next S actions towards thing o |
| `planned.npy` | (N, O) int64 | how many of the S actions are known; the file may be missing: all of them |
| `boxes.npy` | (N, V, O, 4) float32 | the visible boxes (cx, cy, w, h) in [0, 1]; the file may be missing |
| `visible.npy` | (N, V, O) bool | whether the thing is visible; missing where `boxes.npy` is |
| `goal_boxes.npy` | (N, V, O, 4) float32 | the same of where thing o is to go; the file may be missing |
| `goal_visible.npy` | (N, V, O) bool | whether that is visible; missing where `goal_boxes.npy` is |
| `offsets.npy` | (E + 1,) int64 | first step of every episode, then N |
| `seeds.npy` | (E,) int64 | environment seed |
| `targets.npy` | (E,) int64 | the thing that the demonstration went to |
| `events.npy` | (E, O, 2) int64 | first and one-past-last step in which the instruction's event holds |

The header holds the schema version, the task, `cameras`, `action_names`, `agent_pos_names` and `control_hz` (see
`configs.interface`), versions, every file's size and checksum, `steps` (how many every episode has), `instructions`
(for every episode one text per thing, null for one that no words single out), and a checksum of all that. `on_policy:
true` says that what was done is not what the labels say, as where a policy acts and an expert labels: labels of
successive steps are then a chunk only as far as they were followed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.interface import RobotInterface
from configs.reading import parse_json

SCHEMA_VERSION = 4
READABLE = (2, 3, 4)  # 3 has no `planned`; 2 has boxes, no checksum of the header, and perhaps no control_hz
HEADER = "header.json"
ARRAYS: dict[str, str] = {
    "pixels": "uint8",
    "agent_pos": "float32",
    "action": "float32",
    "executed": "float32",
    "planned": "int64",
    "boxes": "float32",
    "visible": "bool",
    "goal_boxes": "float32",
    "goal_visible": "bool",
    "offsets": "int64",
    "seeds": "int64",
    "targets": "int64",
    "events": "int64",
}
PLANNED = "planned"
LABELS = ("boxes", "visible")  # both or neither
GOAL_LABELS = ("goal_boxes", "goal_visible")  # both or neither, and neither where there are no LABELS
SLACK = 1e-5  # by which rounding may leave a range
CHECKED_ROWS = 4096  # at a time
RANKS = {  # number of axes
    "pixels": 5,
    "agent_pos": 2,
    "action": 4,
    "executed": 2,
    "planned": 2,
    "boxes": 4,
    "visible": 3,
    "goal_boxes": 4,
    "goal_visible": 3,
    "offsets": 1,
    "seeds": 1,
    "targets": 1,
    "events": 3,
}
PICTURES = "pictures of one pixel or more, (N, V, H, W, 3)"
PER_STEP = ("pixels", "agent_pos", "action", "executed", PLANNED, *LABELS, *GOAL_LABELS)
PER_EPISODE = ("seeds", "targets", "events")
NAMED_AXES = (  # which axis of an array has a name for each of its entries in the header
    ("pixels", 1, "cameras"),
    ("agent_pos", 1, "agent_pos_names"),
    ("action", 3, "action_names"),
    ("executed", 1, "action_names"),
)
THING_AXIS = {"action": 1, "planned": 1, "boxes": 2, "visible": 2, "goal_boxes": 2, "goal_visible": 2, "events": 1}


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names the file, what was found and what to do."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One recorded episode of K steps; arrays as in the module's table, without the E axis. `planned` is None where all
    actions are known, `boxes` and `visible` where nobody labelled anything, `goal_boxes` and `goal_visible` where
    nobody said where things are to go.
    """

    seed: int
    instructions: tuple[str | None, ...]
    target: int
    success: bool
    pixels: np.ndarray
    agent_pos: np.ndarray
    action: np.ndarray
    executed: np.ndarray
    events: np.ndarray
    planned: np.ndarray | None = None
    boxes: np.ndarray | None = None
    visible: np.ndarray | None = None
    goal_boxes: np.ndarray | None = None
    goal_visible: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset read from disk: memory-mapped arrays and the header. See `open_dataset`."""

    path: Path
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def instructions(self) -> list[list[str | None]]:
        """By episode and thing; None where no words single it out."""
        return [list(texts) for texts in self.header["instructions"]]

    @property
    def texts(self) -> list[str]:
        """All instructions, one after the other."""
        return [text for texts in self.header["instructions"] for text in texts if text is not None]

    @property
    def interface(self) -> RobotInterface:
        """The robot that was recorded."""
        return read_interface(self.header)

    @property
    def on_policy(self) -> bool:
        """Whether somebody else acted than who labelled."""
        return bool(self.header.get("on_policy", False))

    @property
    def labelled(self) -> bool:
        """Whether there are boxes."""
        return "boxes" in self.arrays

    @property
    def goals(self) -> bool:
        """Whether there are boxes of where things are to go."""
        return "goal_boxes" in self.arrays

    @property
    def episodes(self) -> int:
        return len(self.arrays["seeds"])

    @property
    def steps(self) -> int:
        return int(self.arrays["offsets"][-1])


def open_dataset(path: Path, *, verify: bool = True) -> Dataset:
    """Open a dataset; arrays stay on disk.

    Args:
        verify: compare every file's checksum with the header's, and numbers with their ranges (reads the whole dataset
            once).

    Raises:
        DatasetError: missing, truncated, damaged or foreign data; the message names the file.
    """
    if not path.is_dir():
        raise DatasetError(f"{path}: no dataset here; make one with `vla collect`")
    header = _read_header(path / HEADER)
    arrays = {name: _read_array(path, name, header, verify=verify) for name in _listed(path / HEADER, header)}
    _check_lengths(path, header, arrays)
    if not are_pictures(arrays["pixels"]):
        raise DatasetError(f"{path / 'pixels.npy'}: {arrays['pixels'].shape}, expected {PICTURES}")
    _check_instructions(path, header, arrays)
    _check_episodes(path, arrays)
    if verify:
        _check_values(path, arrays)
    return Dataset(path=path, header=header, arrays=arrays)


def open_datasets(folder: Path, tasks: Sequence[str]) -> list[Dataset]:
    """Those of tasks in a folder of `vla collect`; or the one that the folder is, which may be of any task.

    Raises:
        DatasetError: see `open_dataset`.
    """
    one = (folder / HEADER).is_file()
    return [open_dataset(path) for path in ([folder] if one else [folder / task for task in tasks])]


def open_all(folders: Sequence[Path], tasks: Sequence[str]) -> list[Dataset]:
    """The same of several folders, of which each may have some of the tasks only.

    Raises:
        DatasetError: see `open_dataset`; or none has a task, or one has none of them.
    """
    if len(folders) == 1:
        return open_datasets(folders[0], tasks)
    found, single = [], [(folder / HEADER).is_file() for folder in folders]
    for folder, one in zip(folders, single, strict=True):
        has = [task for task in tasks if (folder / task).is_dir()]
        if not has and not one:
            raise DatasetError(f"{folder}: has no dataset of {', '.join(tasks)}; make one with `vla collect`")
        found += open_datasets(folder, has)
    known = {str(data.header["task"]) for data in found}
    missing = [task for task in tasks if task not in known]
    if missing and not all(single):
        named = ", ".join(map(str, folders))
        raise DatasetError(f"{named}: no dataset of {missing[0]} in any of them; make one with `vla collect`")
    return found


def _read_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DatasetError(f"{path}: missing, so this is no finished dataset; make one with `vla collect`")
    try:
        header = parse_json(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path}: not readable as JSON ({error}); collect the dataset again") from None
    version = header.get("schema_version") if isinstance(header, dict) else None
    if version not in READABLE:
        raise DatasetError(
            f"{path}: schema_version {version!r}, expected {SCHEMA_VERSION}; collect the dataset again, or read it "
            "with the version that made it"
        )
    missing = {"files", "instructions", "task", "cameras", "action_names", "agent_pos_names"} - set(header)
    if version >= 3:
        missing |= {"control_hz", "sha256"} - set(header)
    if missing:
        raise DatasetError(f"{path}: field {min(missing)!r} is missing; collect the dataset again")
    for name, kind in (("files", dict), ("instructions", list), ("task", str)):
        if not isinstance(header[name], kind):
            raise DatasetError(f"{path}: field {name!r} is no {kind.__name__}; collect the dataset again")
    if "sha256" in header and header["sha256"] != header_checksum(header):
        raise DatasetError(f"{path}: its checksum differs; the file was changed or damaged, collect the dataset again")
    try:
        read_interface(header)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{path}: {reason_of(error)}; collect the dataset again") from None
    return header


def _listed(path: Path, header: dict[str, Any]) -> list[str]:
    """Names of the arrays that a header lists."""
    names = [name for name in ARRAYS if f"{name}.npy" in header["files"]]
    for name in ARRAYS:
        pairs = (GOAL_LABELS,) if header["schema_version"] < 3 else (LABELS, GOAL_LABELS)
        optional = name == PLANNED or any(name in pair and not set(pair) & set(names) for pair in pairs)
        if name not in names and not optional:
            raise DatasetError(f"{path}: file '{name}.npy' is not listed; collect the dataset again")
    return names


def _read_array(path: Path, name: str, header: dict[str, Any], *, verify: bool) -> np.ndarray:
    file = path / f"{name}.npy"
    expected = header["files"][file.name]
    if not isinstance(expected, dict) or not {"bytes", "sha256"} <= set(expected):
        raise DatasetError(f"{path / HEADER}: file {file.name!r} has no size or checksum; collect the dataset again")
    if not file.is_file():
        raise DatasetError(f"{file}: missing; collect the dataset again")
    if file.stat().st_size != expected["bytes"]:
        raise DatasetError(
            f"{file}: {file.stat().st_size} bytes, expected {expected['bytes']}; truncated or overwritten"
        )
    if verify and checksum(file) != expected["sha256"]:
        raise DatasetError(f"{file}: checksum differs from {HEADER}; the file was damaged, collect it again")
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{file}: not a NumPy array file ({error})") from None
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{file}: an archive, expected one array; collect the dataset again")
    if array.dtype != np.dtype(ARRAYS[name]) or array.ndim != RANKS[name]:
        got = f"{array.dtype} with {array.ndim} axes"
        raise DatasetError(f"{file}: {got}, expected {ARRAYS[name]} with {RANKS[name]}")
    return array


def _check_lengths(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    offsets = arrays["offsets"]
    if len(offsets) < 2 or offsets[0] != 0 or np.any(np.diff(offsets) < 1):
        raise DatasetError(f"{path / 'offsets.npy'}: not an ascending list of first steps; collect the dataset again")
    steps = np.diff(offsets).tolist()
    if header.get("steps", steps) != steps:  # earlier datasets do not say it
        raise DatasetError(
            f"{path / 'offsets.npy'}: episodes begin elsewhere than {HEADER} says; collect the dataset again"
        )
    for name in (name for name in PER_STEP if name in arrays):
        if len(arrays[name]) != offsets[-1]:
            raise DatasetError(f"{path / name}.npy: {len(arrays[name])} steps, offsets.npy says {offsets[-1]}")
    for name in PER_EPISODE:
        if len(arrays[name]) != len(offsets) - 1:
            raise DatasetError(f"{path / name}.npy: {len(arrays[name])} episodes, offsets.npy says {len(offsets) - 1}")


def _check_instructions(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Texts, things, names and targets fit each other."""
    episodes, things = len(arrays["seeds"]), arrays["action"].shape[1]
    if len(header["instructions"]) != episodes:
        got = f"{len(header['instructions'])} instructions"
        raise DatasetError(f"{path / HEADER}: {got}, offsets.npy says {episodes} episodes")
    for name, axis in THING_AXIS.items():
        if name in arrays and arrays[name].shape[axis] != things:
            raise DatasetError(f"{path / name}.npy: {arrays[name].shape[axis]} things, action.npy has {things}")
    for name, axis, names in NAMED_AXES:
        if arrays[name].shape[axis] != len(header[names]):
            raise DatasetError(
                f"{path / name}.npy: {arrays[name].shape[axis]} of {names}, {HEADER} names {len(header[names])}"
            )
    for episode, texts in enumerate(header["instructions"]):
        if not isinstance(texts, list) or len(texts) != things or not all(isinstance(t, str | None) for t in texts):
            raise DatasetError(f"{path / HEADER}: instructions of episode {episode} are no {things} texts or nulls")
        target = int(arrays["targets"][episode])
        if not 0 <= target < things or texts[target] is None:
            raise DatasetError(f"{path / 'targets.npy'}: episode {episode} has target {target}, which no text names")


def _check_episodes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Each seed is there once, and every event lies within its episode."""
    seeds, counts = np.unique(arrays["seeds"], return_counts=True)
    if seeds[0] < 0 or counts.max() > 1:
        wrong = f"{seeds[0]} is negative" if seeds[0] < 0 else f"{seeds[counts.argmax()]} is there {counts.max()} times"
        raise DatasetError(f"{path / 'seeds.npy'}: seed {wrong}, expected each once; collect the dataset again")
    begin, end = arrays["events"][..., 0], arrays["events"][..., 1]
    wrong_events = np.argwhere((begin < 0) | (end < begin) | (end > np.diff(arrays["offsets"])[:, None]))
    if len(wrong_events):
        episode, thing = wrong_events[0]
        got = arrays["events"][episode, thing].tolist()
        length = int(np.diff(arrays["offsets"])[episode])
        raise DatasetError(
            f"{path / 'events.npy'}: episode {episode} has event {got}, expected a part of its {length} steps; "
            "collect the dataset again"
        )


def _check_values(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Numbers that are learned from are finite, and in the ranges of the module's table."""
    ranges = {"agent_pos": (-np.inf, np.inf), "action": (-1, 1), "executed": (-1, 1)}
    ranges |= {"boxes": (0, 1), "goal_boxes": (0, 1), PLANNED: (0, arrays["action"].shape[2])}
    for name, (low, high) in ranges.items():
        for first in range(0, len(arrays.get(name, ())), CHECKED_ROWS):
            rows = arrays[name][first : first + CHECKED_ROWS]
            if not (np.isfinite(rows) & (rows >= low - SLACK) & (rows <= high + SLACK)).all():
                expected = "finite numbers" if np.isinf(high) else f"numbers in [{low}, {high}]"
                raise DatasetError(f"{path / name}.npy: not all are {expected}; collect the dataset again")


def are_pictures(pixels: np.ndarray) -> bool:
    """Whether an array with five axes holds colour pictures that show something."""
    height, width, colours = pixels.shape[2:]
    return height > 0 and width > 0 and colours == 3


def read_interface(header: dict[str, Any]) -> RobotInterface:
    names = {}
    for kind in ("action_names", "agent_pos_names", "cameras"):
        if not isinstance(header[kind], list | tuple):
            raise TypeError(f"{kind} {header[kind]!r} must be a list of names")
        names[kind] = tuple(header[kind])
    rate = header.get("control_hz")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise TypeError(f"control_hz {rate!r} must be a number")
    return RobotInterface(**names, control_hz=None if rate is None else float(rate))


def reason_of(error: Exception) -> str:
    return f"field {error} is missing" if isinstance(error, KeyError) else str(error)


def header_checksum(header: dict[str, Any]) -> str:
    described: Iterable[tuple[str, Any]] = ((k, v) for k, v in header.items() if k != "sha256")
    return hashlib.sha256(json.dumps(dict(described), sort_keys=True).encode()).hexdigest()


def checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
