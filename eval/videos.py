"""A video of one's own, as pictures at the control rate that a policy can look at.

V cameras, H W picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from configs.memory import available_memory
from eval.report.overlay import Frame
from vla_policy.checkpoint import Checkpoint

PICTURE = 512  # pixels a side of the pictures that are kept
PADDING = (124, 116, 104)  # beside letterboxed pictures: the mean of ImageNet's, which backbones are normalised by

Fit = Literal["square", "letterbox"]


class TooLongError(ValueError):
    """A video that memory does not hold; the message says what does fit."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """Square pictures of a video at the control rate, and what of them it fills; see `read_video`."""

    pictures: list[Frame]
    fit: Fit = "square"
    content: tuple[float, float] = (1.0, 1.0)


def read_video(path: Path, control_hz: float, fit: Fit = "square") -> Video:
    """A video at the control rate, as square pictures of `PICTURE` pixels a side.

    Args:
        fit: whether the middle square of each picture is taken, or all of it with padding beside or below.

    Raises:
        ValueError: there is no such file, it is no video, it has no frames, or more than memory holds.
    """
    import imageio.v3 as iio

    if not path.is_file():
        raise ValueError(f"--video {path}: no such file; give a video such as MP4")
    content = (1.0, 1.0)
    there = available_memory()
    room = math.inf if there is None else there // (3 * PICTURE**2)
    try:
        fps = float(iio.immeta(path, plugin="pyav")["fps"])
        pictures: list[Frame] = []
        # Kept small at once: a minute of a large video would not fit into memory.
        for number, frame in enumerate(iio.imiter(path, plugin="pyav")):
            picture = np.asarray(frame, dtype=np.uint8)
            content = _content(*picture.shape[:2]) if fit == "letterbox" else content
            if (number + 1) / fps * control_hz > room:
                raise TooLongError(
                    f"--video {path}: its first {(number + 1) / fps:.0f} s are more than the {room} pictures, "
                    f"{control_hz:g} a second, that memory has room for; give a part of it"
                )
            while len(pictures) / control_hz < (number + 1) / fps - 1e-9:
                pictures.append(fitted(picture, PICTURE, fit))
    except (MemoryError, TooLongError):
        raise
    except Exception as error:  # noqa: BLE001 - the decoder's own kinds
        raise ValueError(f"--video {path}: not a readable video ({' '.join(str(error).split())})") from None
    if not pictures:
        raise ValueError(f"--video {path}: got no frames, expected one or more")
    return Video(pictures=pictures, fit=fit, content=content)


def observations_of(checkpoint: Checkpoint, pictures: Sequence[Frame]) -> list[dict[str, Any]]:
    """Pictures of one camera, of any size, as observations. What the arm's joints do is unknown: the mean is taken.

    Raises:
        ValueError: the policy sees several cameras, which one video cannot show.
    """
    policy = checkpoint.policy
    cameras = policy.config.cameras
    if len(cameras) > 1:
        raise ValueError(
            f"the policy sees {len(cameras)} cameras ({', '.join(cameras)}), a video shows one; use --task"
        )
    size = policy.shapes.size
    agent_pos = policy.normaliser.mean.cpu().numpy()
    return [{"pixels": {cameras[0]: fitted(picture, size)}, "agent_pos": agent_pos} for picture in pictures]


def fitted(picture: Frame, size: int, fit: Fit = "square") -> Frame:
    """The middle square of a picture, or all of it in the upper left of a padded square, `(size, size, 3)` uint8."""
    height, width = picture.shape[:2]
    if fit == "letterbox":
        columns, rows = (max(round(size * share), 1) for share in _content(height, width))
        small = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BOX)
        square = np.full((size, size, 3), PADDING, dtype=np.uint8)
        square[:rows, :columns] = np.asarray(small)
        return square
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(middle.resize((size, size), Image.Resampling.BOX), dtype=np.uint8)


def _content(height: int, width: int) -> tuple[float, float]:
    """Share of a square's width and height that a picture fills which is as wide or as high as the square."""
    side = max(height, width)
    return width / side, height / side
