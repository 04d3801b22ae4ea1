"""Writing MP4 files that browsers play."""

from __future__ import annotations

import math
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from errseg_rt.system.atomic import write_atomically


class VideoWriter:
    """Writes BGR frames as H.264 in an MP4 that is whole or not there; use it in a `with` block.

    Args:
        path: The file.
        fps: Frames a second.

    Raises:
        ValueError: `fps` is not a positive number.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        if not 0 < fps < math.inf:
            raise ValueError(f"fps must be positive and finite, got {fps}")
        self._path, self._fps = Path(path), fps
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        temporary = self._stack.enter_context(write_atomically(self._path))
        # The index in front lets a browser play before it has the whole file.
        self._container = av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})
        self._stack.callback(self._container.close)
        return self

    def write(self, frame: npt.NDArray[np.uint8]) -> None:
        """Append a frame, `uint8 [H, W, 3]` in BGR; all frames are of one size.

        An odd last row or column is repeated, since the format halves the colours' resolution.

        Raises:
            ValueError: The frame is of another type or size than it must be.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame is uint8 [H, W, 3], got {frame.dtype} {frame.shape}")
        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=Fraction(self._fps).limit_denominator(1001))
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        if frame.shape[:2] != (self._stream.height, self._stream.width):
            raise ValueError(f"frame is {frame.shape[:2]}, the video is {(self._stream.height, self._stream.width)}")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        self._container.mux(self._stream.encode(picture))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:  # closes the container, then renames the file or, after an error, removes it
            if error is not None:
                raise error
            if self._stream is None:
                raise ValueError(f"{self._path}: no frame was written")
            self._container.mux(self._stream.encode())
