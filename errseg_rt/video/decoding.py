"""From a container's packets to upright BGR frames, by FFmpeg."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from errseg_rt.errors import FrameError, SourceError
from errseg_rt.system.lines import one_line
from errseg_rt.video.picture import Faults


def video_stream(container: Any, name: str) -> Any:
    """The stream of a container that is a video, and no cover picture.

    Raises:
        SourceError: There is none, or nothing here decodes it.
    """
    videos = [stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic]
    if not videos:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{name}: holds no video ({kinds}); give another file")
    best = container.streams.best("video")
    stream = best if best in videos else videos[0]
    if stream.codec_context is None:
        raise SourceError(f"{name}: this FFmpeg has no decoder for its video; convert it, for example to H.264")
    return stream


def reason_of(error: BaseException) -> str:
    """What FFmpeg says of an error, in a line without numbers, and without the address, which may hold a password."""
    return one_line(getattr(error, "strerror", None) or error)


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raise FrameError where frames are larger than is taken, which opening a source again does not mend."""
    if width * height > max_pixels:
        raise FrameError(
            f"{name}: frames of {height}x{width} pixels are over the limit of {max_pixels}; raise max_pixels"
        )


def decoded(
    container: Any, stream: Any, faults: Faults, name: str, max_pixels: int, silence: float = math.inf
) -> Iterator[Any]:
    """The frames of a stream, PyAV's; what cannot be decoded is counted and passed over.

    They end, too, after `silence`: seconds in which the container gave packets of other streams alone.

    Raises:
        FrameError: Frames are too large.
        av.error.FFmpegError: The container itself cannot be read on.
    """
    # A broken packet and a connection that breaks raise the same error: by where it is raised they are told apart.
    for packet in _packets(container, stream, silence):
        if packet.is_corrupt:
            faults.corrupt += 1
        context = stream.codec_context
        check_size(context.width, context.height, name, max_pixels)
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            faults.corrupt += 1
            continue
        for frame in frames:
            check_size(frame.width, frame.height, name, max_pixels)
            if frame.is_corrupt:
                faults.corrupt += 1
            yield frame


def _packets(container: Any, stream: Any, silence: float) -> Iterator[Any]:
    """Those of a stream, until there have only been others for some seconds: FFmpeg's own timeout looks at any."""
    last = time.monotonic()
    for packet in container.demux() if silence < math.inf else container.demux(stream):
        if packet.stream.index == stream.index:
            yield packet
            last = time.monotonic()  # whoever takes packets may take their time
        elif time.monotonic() - last > silence:
            return


class Upright:
    """Makes pictures as they shall be shown of the frames of one opening of a source.

    There is one scaler for all: each frame's own stays, with its threads, until Python looks for cycles. How frames are
    turned is asked at key frames: of cameras that tell it with these, others say nothing.
    """

    def __init__(self) -> None:
        self._scaler = VideoReformatter()
        self._turn: tuple[float, float, float, float] | None = None

    @property
    def swaps_sides(self) -> bool:
        """Whether rows become columns."""
        return self._turn is not None and abs(self._turn[1]) > abs(self._turn[0])

    def picture(self, frame: Any) -> npt.NDArray[np.uint8]:
        """A frame of PyAV, BGR `uint8 [H, W, 3]`, turned and mirrored as its container says."""
        # All is said, so that nothing is left to PyAV's guess.
        given = ColorRange(frame.color_range or ColorRange.MPEG)
        picture: npt.NDArray[Any] = self._scaler.reformat(
            frame,
            format="bgr24",
            dst_colorspace=Colorspace.DEFAULT,
            src_color_range=given,
            dst_color_range=ColorRange.JPEG,
        ).to_ndarray()
        if self._turn is None or frame.key_frame:
            self._turn = _orientation(frame)
        a, b, c, d = self._turn
        if self.swaps_sides:  # of angles between the right ones the nearest
            picture = cv2.transpose(picture)
        rows, cols = (b, c) if self.swaps_sides else (d, a)
        if rows < 0 or cols < 0:
            picture = cv2.flip(picture, -1 if rows < 0 and cols < 0 else 0 if rows < 0 else 1)
        return np.ascontiguousarray(picture, np.uint8)


def _orientation(frame: Any) -> tuple[float, float, float, float]:
    """The a, b, c and d by which x' = a x + c y and y' = b x + d y of a point of a frame, when it is shown."""
    try:
        # Not frame.side_data, which would be a cycle with the frame.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    except ValueError:  # beside data of a kind that PyAV does not know
        angle = np.deg2rad(frame.rotation)
        return np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    if matrix is None:
        return 1, 0, 0, 1
    (a, b, _), (c, d, _) = np.frombuffer(matrix, np.int32).reshape(3, 3)[:2].tolist()
    return a, b, c, d


def pixel_aspect(stream: Any, swaps_sides: bool) -> float:
    """Width over height of a pixel, once the frame is upright."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return 1 / aspect if swaps_sides else aspect
