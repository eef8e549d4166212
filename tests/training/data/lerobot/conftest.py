"""A dataset as LeRobot writes it: several files, two cameras that are not square, names in other forms, any units."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from training.data.lerobot.video import VideoWriter

FPS = 15
LENGTHS = (6, 9, 4)
TASKS = ("open the drawer", "close the drawer")


@pytest.fixture
def write_foreign(tmp_path: Path) -> Callable[..., Path]:
    """Writes it and returns its folder. The second episode changes its task after its fourth frame.

    Args:
        change: may change info.json's content before it is written.
    """

    def write(name: str = "drawers", change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
        rng, root = np.random.default_rng(0), tmp_path / name
        info: dict[str, Any] = {
            "codebase_version": "v3.0",
            "robot_type": "so101",
            "total_episodes": len(LENGTHS),
            "total_frames": sum(LENGTHS),
            "fps": FPS,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": {
                "observation.images.head": {"dtype": "video", "shape": [24, 32, 3], "names": None},
                "observation.images.wrist": {"dtype": "image", "shape": [3, 24, 32], "names": None},
                "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "grip"]}},
                "action": {"dtype": "float32", "shape": [2], "names": {"slide": 1, "turn": 0}},
                "next.reward": {"dtype": "float32", "shape": [1], "names": None},
            },
        }
        change(info)
        head = VideoWriter(
            root / info["video_path"].format(video_key="observation.images.head", chunk_index=0, file_index=0),
            (24, 32),
            Fraction(FPS),
        )
        entries, index = [], 0
        for number, length in enumerate(LENGTHS):
            begin = head.frames
            for frame in range(length):
                head.add(np.full((24, 32, 3), 10 * (index + frame), np.uint8))
            told = np.array([int(number == 1 and frame >= 4) for frame in range(length)])
            columns = {
                "observation.images.wrist": [
                    {"bytes": png(np.full((24, 32, 3), 100 + number, np.uint8)), "path": None} for _ in range(length)
                ],
                "observation.state": list(rng.normal(size=(length, 3)).astype(np.float32)),
                "action": list(np.stack([np.linspace(0, 512, length), np.full(length, 3.0)], 1).astype(np.float32)),
                "next.reward": np.zeros(length, np.float32),
                "timestamp": (np.arange(length) / FPS).astype(np.float32),
                "frame_index": np.arange(length),
                "episode_index": np.full(length, number),
                "index": index + np.arange(length),
                "task_index": told,
            }
            file = root / info["data_path"].format(chunk_index=0, file_index=number)
            file.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.table(columns), file)
            video = {"chunk_index": 0, "file_index": 0, "from_timestamp": begin / FPS}
            entries.append(
                {
                    "episode_index": number,
                    "length": length,
                    "tasks": [TASKS[i] for i in np.unique(told)],
                    "data/chunk_index": 0,
                    "data/file_index": number,
                    **{f"videos/observation.images.head/{key}": value for key, value in video.items()},
                }
            )
            index += length
        head.close()
        (root / "meta/episodes/chunk-000").mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist(entries), root / "meta/episodes/chunk-000/file-000.parquet")
        tasks = {"task_index": [0, 1], "__index_level_0__": list(TASKS)}
        parquet.write_table(pyarrow.table(tasks), root / "meta/tasks.parquet")
        (root / "meta/info.json").write_text(json.dumps(info))
        return root

    return write


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()
