"""Writing pictures and videos that any browser shows: MP4 (H.264, yuv420p), animated WebP, PNG.

Frames are (H, W, 3) uint8. A file appears under its name only once it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from configs.disk import filling

Frame = NDArray[np.uint8]  # (H, W, 3)

H264_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf")


def write_mp4(path: str | Path, frames: Iterable[Frame], fps: float) -> Path:
    """Encode as H.264 in yuv420p, the one combination that every current browser plays.

    Raises ValueError for no frames, frames of changing or odd size (yuv420p halves both sides; `draw_overlay`
    always returns even ones), or a name that does not end in .mp4; RuntimeError without an H.264 encoder.
    """
    path = _checked_path(path, ".mp4")
    _check_fps(fps)
    encoder = _h264_encoder()

    def write(file: BytesIO) -> None:
        import imageio.v3 as iio

        # Typed as Any: init_video_stream and write_frame belong to this plugin alone.
        video: Any
        with iio.imopen(file, "w", plugin="pyav", extension=".mp4") as video:
            video.init_video_stream(encoder, fps=float(fps), pixel_format="yuv420p")
            for frame in _checked_frames(frames, path, even=True):
                video.write_frame(np.ascontiguousarray(frame))

    return _replace_when_done(path, write)


def write_webp(
    path: str | Path,
    frames: Iterable[Frame],
    fps: float,
    *,
    width: int | None = None,
    every: int = 1,
    quality: int = 60,
    hold_last_s: float = 1.0,
) -> Path:
    """Encode as an animation that loops for ever and plays inside a README.

    Args:
        width: shrink to this many pixels, keeping the proportions; None keeps the size.
        every: keep one frame in so many, at the same speed; the last frame is kept in any case.
        quality: 0 (smallest) to 100.
        hold_last_s: how long the last frame, with the verdict, stays before the loop starts again.
    """
    path = _checked_path(path, ".webp")
    _check_fps(fps)
    if every < 1:
        raise ValueError(f"every: got {every}, expected 1 or more")
    if width is not None and width < 1:
        raise ValueError(f"width: got {width}, expected 1 or more")
    if not 0 <= quality <= 100:
        raise ValueError(f"quality: got {quality}, expected 0 to 100")
    all_frames = list(_checked_frames(frames, path, even=False))
    kept = [i for i in range(len(all_frames)) if i % every == 0 or i == len(all_frames) - 1]
    pictures = [Image.fromarray(all_frames[i]) for i in kept]
    if width is not None:
        size = (width, max(1, round(pictures[0].height * width / pictures[0].width)))
        pictures = [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures]
    # Rounded moments rather than rounded durations, so that the errors do not add up.
    moments = [round(1000 * i / fps) for i in kept]
    durations = [later - earlier for earlier, later in pairwise(moments)]
    durations.append(max(1, round(1000 * hold_last_s)))

    def write(file: BytesIO) -> None:
        pictures[0].save(
            file,
            format="WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            quality=quality,
            method=4,
        )

    return _replace_when_done(path, write)


def write_png(path: str | Path, frame: Frame) -> Path:
    """Write one picture without loss."""
    path = _checked_path(path, ".png")
    (checked,) = _checked_frames([frame], path, even=False)
    return _replace_when_done(path, lambda file: Image.fromarray(checked).save(file, format="PNG"))


def _h264_encoder() -> str:
    import av.codec

    for name in H264_ENCODERS:
        if name in av.codec.codecs_available:
            return name
    raise ValueError(
        f"this PyAV ({av.__version__}) has no H.264 encoder, looked for {', '.join(H264_ENCODERS)}; "
        "`pip install --force-reinstall av` installs one that has"
    )


def _check_fps(fps: float) -> None:
    if not 0 < fps <= 1000:
        raise ValueError(f"fps: got {fps}, expected a number above 0 and up to 1000")


def _checked_path(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path}: got a name ending in {path.suffix or 'nothing'}, expected {suffix}")
    return path


def _checked_frames(frames: Iterable[Frame], path: Path, *, even: bool) -> Iterator[Frame]:
    first: tuple[int, ...] | None = None
    for i, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"{path}: frame {i}: got {frame.dtype} {frame.shape}, expected uint8 (H, W, 3)")
        if first is None:
            first = frame.shape
            if even and (first[0] % 2 or first[1] % 2):
                raise ValueError(f"{path}: got frames of {first[1]}x{first[0]} pixels, expected even sides")
        if frame.shape != first:
            raise ValueError(f"{path}: frame {i}: got {frame.shape}, expected {first} as in frame 0")
        yield frame
    if first is None:
        raise ValueError(f"{path}: got no frames, expected at least 1")


def _replace_when_done(path: Path, write: Callable[[BytesIO], object]) -> Path:
    """Write into memory, then the file as a whole: the encoder has no words for a disk that is full."""
    encoded = BytesIO()
    write(encoded)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with filling(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(encoded.getbuffer())
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
