"""Video files as a source."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.errors import SourceError
from errseg_rt.video.decoding import Upright, check_size, decoded, pixel_aspect, reason_of, video_stream
from errseg_rt.video.picture import CONNECTED, ENDED, USUAL_FPS, WAITING, Faults, Picture, Timeline


class FileSource:
    """A video file; see `errseg_rt.video.picture.Source`.

    Args:
        path: The file.
        start: Seconds of its time at which to begin.
        duration: Seconds to give; None: to its end.
        max_pixels: Largest height times width of a frame that is taken.

    Raises:
        SourceError: It cannot be opened, or holds no video.
        FrameError: Its frames are too large.
    """

    is_live = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        start: float = 0.0,
        duration: float | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path, self.name = Path(path), os.fspath(path)
        self.faults, self.state = Faults(), WAITING
        self._start, self._duration, self._max_pixels = start, duration, max_pixels
        with self._opened() as container:  # so that what is wrong shows at once
            stream = video_stream(container, self.name)
            check_size(stream.codec_context.width, stream.codec_context.height, self.name, max_pixels)
            self.fps: float | None = float(stream.average_rate) if stream.average_rate else None
            self.length: int | None = stream.frames or None
            self.seconds: float | None = container.duration / av.time_base if container.duration else None

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """As `Source.pictures`: nothing is made up, and variable rates stay."""
        index, end = 0, None if self._duration is None else self._start + self._duration
        timeline = Timeline(1 / (self.fps or USUAL_FPS))
        with self._opened() as container:
            stream = video_stream(container, self.name)
            stream.thread_type = "AUTO"
            begin = (container.start_time or 0) / av.time_base
            if self._start and not container.format.flags & av.format.Flags.no_timestamps.value:
                with suppress(av.error.FFmpegError):  # what cannot be sought in is read from its first frame
                    container.seek(round((begin + self._start) * av.time_base))
            self.state = CONNECTED
            last, upright = None, Upright()
            try:
                for frame in decoded(container, stream, self.faults, self.name, self._max_pixels):
                    last = timeline.stamp(None if frame.time is None else frame.time - begin)
                    if stop.is_set() or (end is not None and last >= end):
                        break
                    if last < self._start:
                        continue
                    yield Picture(upright.picture(frame), index, last, None, pixel_aspect(stream, upright.swaps_sides))
                    index += 1
            except av.error.FFmpegError as error:
                # What was there is given; a file that breaks off is one that ends, with a fault.
                self.faults.corrupt += 1
                if not index:
                    raise SourceError(f"{self.name}: cannot be read ({reason_of(error)}); give another file") from error
            if not index and not stop.is_set():
                raise SourceError(f"{self.name}: {self._nothing(last, stream.codec_context.name)}")
        self.state = ENDED

    def _nothing(self, last: float | None, codec: str) -> str:
        """Why there was no frame, when the last that was decoded came at a time."""
        if last is None and not self._start:
            return f"opens, and no frame of it can be decoded ({codec}); convert it, for example to H.264"
        part = "" if self._duration is None else f" for {self._duration:g}"
        length = f"; it is {self.seconds:g} seconds long" if self.seconds else ""
        return f"has no frame from second {self._start:g} on{part}{length}"

    def _opened(self) -> Any:
        if not self.path.exists():
            raise SourceError(f"{self.name}: there is no such file; check its path")
        if self.path.is_file() and not self.path.stat().st_size:
            raise SourceError(f"{self.name}: is empty; give another file")
        try:
            return av.open(self.name, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(f"{self.name}: is no video that can be read ({reason_of(error)})") from error
