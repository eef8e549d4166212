"""Videos of many episodes, written and read frame by frame: at no time are more than a few frames in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from training.data.episodes import DatasetError
from training.data.lerobot.layout import DAMAGED

CODEC = "h264"
# Every second frame is whole, as LeRobot's own are: one at random is then quick to reach. Frames come in their order.
OPTIONS = {"crf": "10", "g": "2", "bf": "0", "preset": "veryfast"}
# Colours at the full resolution: at half of it, small pictures lose more by that than by all else.
PIXELS = "yuv444p"
FAR = 60  # frames ahead, from which on a jump beats decoding what lies between


class VideoWriter:
    """A video that grows, of frames (H, W, 3) uint8. `bytes`: its size, but for what is not encoded yet."""

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction) -> None:
        import av

        self._av = av
        self.frames = self.bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        stream: Any = self._container.add_stream("libx264", rate=fps, options=OPTIONS)
        stream.height, stream.width, stream.pix_fmt = *size, PIXELS
        stream.codec_context.thread_count = 1  # the same bytes on any machine
        self._stream, self._time_base = stream, 1 / fps

    def add(self, frame: np.ndarray) -> None:
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self.frames, self._time_base
        for packet in self._stream.encode(picture):
            self.bytes += packet.size
            self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()


class VideoReader:
    """Frames of a video by their time, (H, W, 3) uint8.

    Args:
        fps: frames a second; a frame may lie half of one beside the time that it is asked for.

    Raises:
        DatasetError: the file is missing, damaged or no video.
    """

    def __init__(self, path: Path, fps: float) -> None:
        import av

        if not path.is_file():
            raise DatasetError(f"{path}: missing; {DAMAGED}")
        # The last two are of a time that no video has, and of a frame without a time.
        self.path, self._fps, self._errors = path, fps, (av.FFmpegError, OSError, ValueError, OverflowError, TypeError)
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (*self._errors, IndexError) as error:
            raise self._damaged(error) from None
        self._decoded: Iterator[Any] = iter(self._container.decode(self._stream))
        self._frame: Any = None

    def frames(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """The frames at these seconds, which ascend."""
        for time in times:
            yield self._at(time)

    def close(self) -> None:
        self._container.close()

    def _at(self, time: float) -> np.ndarray:
        slack = 0.5 / self._fps
        try:
            if self._frame is None or not -slack <= time - self._frame.time <= FAR / self._fps:
                base = self._stream.time_base or Fraction(1, 1000)
                self._container.seek(max(int((time - slack) / base), 0), stream=self._stream)
                self._decoded = iter(self._container.decode(self._stream))
                self._frame = next(self._decoded)
            while self._frame.time < time - slack:
                self._frame = next(self._decoded)
            picture: np.ndarray = self._frame.to_ndarray(format="rgb24")
        except StopIteration:
            raise DatasetError(f"{self.path}: ends before second {time:.3f}, where a frame is due; {DAMAGED}") from None
        except self._errors as error:
            raise self._damaged(error) from None
        if self._frame.time > time + slack:
            raise DatasetError(f"{self.path}: has no frame at second {time:.3f}; {DAMAGED}")
        return picture

    def _damaged(self, error: Exception) -> DatasetError:
        return DatasetError(f"{self.path}: not readable as a video ({' '.join(str(error).split())}); {DAMAGED}")
