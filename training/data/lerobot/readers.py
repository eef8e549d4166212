"""What becomes of a recorded episode of LeRobot's: of one that was exported from here, and of anybody else's.

n steps, V cameras, H W picture, A actions, P proprioception.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from configs.lerobot import ImportConfig
from training.data.episodes import ARRAYS, PER_STEP, DatasetError, Episode, read_interface, reason_of
from training.data.lerobot import layout
from training.data.lerobot.layout import DAMAGED, OWN, EpisodeEntry, Info
from training.data.lerobot.scale import Scale

STRETCH = 10_000_000  # seeds of the stretches of an episode lie so far apart; the first one's is the episode's number


@dataclass(kw_only=True)
class Recorded:
    """An episode's rows so far: a list of arrays by column, and of decoded pictures by camera."""

    entry: EpisodeEntry
    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    pictures: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def column(self, name: str) -> np.ndarray:
        return np.concatenate(self.columns[name])


class Reader:
    """What is taken of a dataset: `header` of what it becomes, `vectors` its columns with their shapes, `cameras` its
    pictures by key, `picture` the height and width of those that are kept.
    """

    header: dict[str, Any]
    vectors: dict[str, tuple[int, ...]]
    cameras: dict[str, str]
    picture: tuple[int, int]

    def seeds(self, recorded: Recorded) -> list[int]:
        """Of the episodes that an episode of LeRobot's becomes; known before its pictures are."""
        raise NotImplementedError

    def episodes(self, recorded: Recorded) -> Iterator[Episode]:
        raise NotImplementedError

    def fitted(self, picture: np.ndarray, where: str) -> np.ndarray:
        """A picture (H, W, 3) uint8 as it is kept."""
        raise NotImplementedError


class Returning(Reader):
    """One that was exported from here: all is as it was."""

    def __init__(self, info: Info, config: ImportConfig) -> None:
        if config != ImportConfig():
            raise DatasetError(
                f"{info.root}: was exported from here and comes back as it was; leave the options of import out, or "
                f"remove its {layout.OURS} to read it as anybody's"
            )
        described = layout.read_json(info.root / layout.OURS)
        header, own = described.get("header"), described.get("columns")
        own = own if isinstance(own, list) else [None]
        if not isinstance(header, dict) or not all(name in PER_STEP for name in own):
            raise DatasetError(f"{info.root / layout.OURS}: does not describe a dataset; {DAMAGED}")
        self._info, self._own, self.header = info, own, header
        try:
            robot = read_interface(header)
            self._scale = Scale.from_header(header, len(robot.action_names))
        except (KeyError, TypeError, ValueError) as error:
            where = info.root / layout.OURS
            raise DatasetError(f"{where}: does not describe a dataset ({reason_of(error)}); {DAMAGED}") from None
        self.cameras = {f"{layout.PICTURES}{name}": name for name in header["cameras"]}
        keys = [layout.STATE, layout.ACTION, *(OWN + name for name in own)]
        if missing := [key for key in (*self.cameras, *keys) if key not in info.features]:
            raise DatasetError(f"{info.root / layout.INFO}: feature {missing[0]!r} is missing; {DAMAGED}")
        self.vectors = {key: info.shape(key) for key in keys}
        shapes = {info.shape(key) for key in self.cameras}
        if len(shapes) > 1 or len(shape := shapes.pop()) != 3:
            raise DatasetError(f"{info.root / layout.INFO}: pictures are of several shapes; {DAMAGED}")
        self.picture = shape[0], shape[1]

    def seeds(self, recorded: Recorded) -> list[int]:
        seed = recorded.entry.own.get(f"{OWN}seed")
        if not isinstance(seed, int):
            raise DatasetError(f"{self._info.root}: episode {recorded.entry.number} has lost its {OWN}seed; {DAMAGED}")
        return [seed]

    def episodes(self, recorded: Recorded) -> Iterator[Episode]:
        entry, where = recorded.entry, f"{self._info.root}: episode {recorded.entry.number}"
        try:
            told = {name: entry.own[OWN + name] for name in ("target", "events", "instructions")}
            events, instructions = np.array(told["events"], np.int64), tuple(told["instructions"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(f"{where}: has lost columns of {OWN}* ({error}); {DAMAGED}") from None
        own = {n: recorded.column(OWN + n).astype(ARRAYS[n], copy=False) for n in self._own}
        label = self._scale.to_unit(recorded.column(layout.ACTION))
        own.setdefault("executed", label)
        own.setdefault("action", label[:, None, None])
        yield Episode(
            seed=self.seeds(recorded)[0],
            instructions=instructions,
            target=told["target"],
            success=True,
            pixels=np.stack([np.stack(recorded.pictures[key]) for key in self.cameras], axis=1),
            agent_pos=recorded.column(layout.STATE).astype(np.float32),
            events=events,
            **own,
        )

    def fitted(self, picture: np.ndarray, where: str) -> np.ndarray:
        if picture.shape != (expected := self._info.shape(next(iter(self.cameras)))):
            raise DatasetError(f"{where}: a picture of the shape {picture.shape}, expected {expected}; {DAMAGED}")
        return picture


class Foreign(Reader):
    """Anybody's."""

    def __init__(self, info: Info, config: ImportConfig) -> None:
        self._info, self._config = info, config
        self._tasks = layout.read_tasks(info.root)
        self.cameras = _chosen_cameras(info, config)
        self._side = config.size or _common_side(info, self.cameras)
        self.picture = self._side, self._side
        vectors = [key for key in info.features if info.features[key]["dtype"].startswith(("float", "int"))]
        for option, key in (("state", config.state), ("action", config.action)):
            if key not in vectors or len(info.shape(key)) != 1:
                known = ", ".join(key for key in vectors if key not in layout.INDICES and len(info.shape(key)) == 1)
                raise DatasetError(f"{info.root}: has no vector {key!r}; choose one with --{option}: {known or 'none'}")
        actions = info.shape(config.action)[0]
        self.vectors = {config.state: info.shape(config.state), config.action: info.shape(config.action)}
        self._scale = self._find_scale(actions)
        self.header = {
            "task": config.task or info.root.resolve().name,
            "cameras": list(self.cameras.values()),
            "action_names": list(layout.names_of(info.features[config.action], actions, "action")),
            "agent_pos_names": list(layout.names_of(info.features[config.state], info.shape(config.state)[0], "state")),
            "control_hz": info.fps,
            "source": {"format": f"lerobot {layout.VERSION}", "episodes": info.total_episodes, "size": self._side},
            **self._scale.header,
        }

    def _find_scale(self, actions: int) -> Scale:
        """From the given bounds, or from all actions there are: their column is read ahead of all else."""
        key, low, high = self._config.action, self._config.action_low, self._config.action_high
        if low and len(low) != actions:
            raise DatasetError(f"--action-low has {len(low)} numbers, {key!r} of {self._info.root} has {actions}")
        lowest, highest = np.full(actions, np.inf), np.full(actions, -np.inf)
        for path in dict.fromkeys(self._info.data_file(*e.data) for e in layout.read_episodes(self._info)):
            for batch in layout.batches_of(path, [key]):
                values = layout.numbers(batch, key, (actions,), path).astype(np.float64)
                if len(values):
                    lowest, highest = np.minimum(lowest, values.min(0)), np.maximum(highest, values.max(0))
        if not low:
            return Scale.spanning(lowest, highest)
        names = layout.names_of(self._info.features[key], actions, "action")
        for name, a, b, least, most in zip(names, low, high, lowest, highest, strict=True):
            if least < a or most > b:
                raise DatasetError(f"{self._info.root}: {name} goes from {least:g} to {most:g}, beyond {a:g} to {b:g}")
        return Scale(low=tuple(low), high=tuple(high))

    def seeds(self, recorded: Recorded) -> list[int]:
        number = recorded.entry.number
        return [number + stretch * STRETCH for stretch in range(len(_stretches(recorded)))]

    def episodes(self, recorded: Recorded) -> Iterator[Episode]:
        where = f"{self._info.root}: episode {recorded.entry.number}"
        told = recorded.column("task_index")
        action = self._scale.to_unit(recorded.column(self._config.action))
        agent_pos = recorded.column(self._config.state).astype(np.float32)
        pixels = np.stack([np.stack(recorded.pictures[key]) for key in self.cameras], axis=1)
        for seed, rows in zip(self.seeds(recorded), _stretches(recorded), strict=True):
            text = self._tasks.get(int(told[rows.start]))
            if text is None:
                raise DatasetError(f"{where}: task_index {told[rows.start]} is not in {layout.TASKS}; {DAMAGED}")
            text = text if text.strip() else self._config.instruction
            if not text.strip():
                raise DatasetError(f"{where}: its instruction is empty; say one with --instruction")
            yield Episode(
                seed=seed,
                instructions=(text,),
                target=0,
                success=True,
                pixels=pixels[rows],
                agent_pos=agent_pos[rows],
                action=action[rows, None, None],
                executed=action[rows],
                events=np.array([[0, rows.stop - rows.start]]),
            )

    def fitted(self, picture: np.ndarray, where: str) -> np.ndarray:
        """The middle square at the chosen resolution, as `vla ground --video` sees a video."""
        height, width = picture.shape[:2]
        if height == width == self._side:
            return picture
        side = min(height, width)
        box = ((width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2)
        size = (self._side, self._side)
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX, box=box))


def _stretches(recorded: Recorded) -> list[slice]:
    """Rows of an episode that share an instruction."""
    return runs(recorded.column("task_index"))


def runs(values: np.ndarray) -> list[slice]:
    """Where the same value stands several times in a row."""
    bounds = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [slice(first, last) for first, last in pairwise(bounds) if last > first]


def _chosen_cameras(info: Info, config: ImportConfig) -> dict[str, str]:
    """Name of each camera by its key."""
    names = {key: key.removeprefix(layout.PICTURES).removeprefix("observation.") for key in info.cameras}
    if not names:
        raise DatasetError(f"{info.root}: has no pictures; a policy needs a camera")
    if len(set(names.values())) < len(names):
        names = {key: key for key in names}
    for wanted in config.cameras:
        if wanted not in names.values():
            raise DatasetError(f"{info.root}: has no camera {wanted!r}; choose from {', '.join(names.values())}")
    chosen = {name: key for key, name in names.items()}
    return {chosen[name]: name for name in config.cameras or names.values()}


def _common_side(info: Info, cameras: Mapping[str, str]) -> int:
    """Pixels a side, if all pictures are square and alike."""
    sizes = {key: tuple(n for n in info.shape(key) if n != 3) for key in cameras}
    sides = {side for size in sizes.values() for side in size}
    if len(sides) != 1 or any(len(size) != 2 for size in sizes.values()):
        told = ", ".join(f"{cameras[key]} {' x '.join(map(str, size))}" for key, size in sizes.items())
        raise DatasetError(f"{info.root}: pictures are {told}; say with --size how large squares are to become of them")
    return sides.pop()
