"""Writing MP4 files that browsers play, at the source's own time, with its sound; what a kill leaves plays, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import PictureType

_TICKS = 90_000  # a second, as MPEG counts them
# Fragments while it is written, which a kill leaves whole; a plain file in the end. The header waits for the first of
# each stream's packets, or a sound that begins later than the picture would be moved to its beginning.
_FRAGMENTED = "hybrid_fragmented+negative_cts_offsets+delay_moov"
# The look-ahead is what a kill loses beside the fragment that is being written.
_ENCODER = {"crf": "20", "preset": "veryfast", "bf": "0", "rc-lookahead": "5"}
_LONGEST = 6 * 3600 * _TICKS  # from a frame to the next; an MP4 holds 2 ** 31
_KEY_EVERY = 1.0  # seconds; a kill loses what came since
_APART = 0.25  # seconds that picture or sound wait for each other


class _Partial:
    """A media file that is `NAME.partial.SUFFIX` until it is whole; a file that was there before stays until then.

    Args:
        path: The file.
        suffix: That of a file whose name has none.
    """

    def __init__(self, path: str | os.PathLike[str], suffix: str) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(f"{self.path.stem}.partial{self.path.suffix or suffix}")
        self._container: Any = None
        self._stream: Any = None  # of the pictures, once there is one
        self._begin, self._last = 0.0, -1  # seconds of the first picture, and ticks of the latest from there
        self._is_broken = False

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the pictures, once there was one."""
        return None if self._stream is None else (self._stream.height, self._stream.width)

    def _open(self, container: str, **options: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Else a kill loses the last 256 kB, many seconds of a small picture, or 10 s after the end of a sound.
        options |= {"flush_packets": "1", "max_interleave_delta": str(round(1e6 * _APART))}
        self._container = av.open(os.fspath(self.partial), "w", format=container, options=options)

    def _add_stream(self, codec: str, size: tuple[int, int], pixels: str, ticks: int) -> None:
        self._stream = self._container.add_stream(codec, rate=25)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = pixels
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, ticks)

    def _mux(self, packets: Any) -> None:
        """Write packets, with errors that name the file, as FFmpeg's do not."""
        self._is_broken = True  # until it is done: muxing on after a fault may crash the process
        try:
            self._container.mux(packets)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(self.path)) from error
        self._is_broken = False

    def _settle(self, error: BaseException | None) -> None:
        """Give the file its name, or leave what there is of it under the other one; nothing of it where it is empty."""
        if self._stream is None:
            self.partial.unlink(missing_ok=True)
        elif error is None or not isinstance(error, Exception):  # what a user or the system ends by is an end, too
            os.replace(self.partial, self.path)


class ClipWriter(_Partial):
    """Writes BGR frames as H.264 into an MP4, whose time begins with the first of them; use it in a `with` block.

    Until the end it is `NAME.partial.mp4`, which plays up to its last second or two whatever ends the program; a file
    that was there before stays until then.

    Args:
        path: The file.
        audio: A media file, of whose time the frames are, and whose sound is copied, where the container takes it.

    Attributes:
        notes: What could not be taken over.
    """

    def __init__(self, path: str | os.PathLike[str], audio: Path | None = None) -> None:
        super().__init__(path, ".mp4")
        self.notes: list[str] = []
        self._audio = audio
        self._stack = ExitStack()
        self._sound: Iterator[Any] = iter(())
        self._pending: Any = None  # the next packet of sound
        self._key, self._step = -_KEY_EVERY, _TICKS // 25

    def __enter__(self) -> ClipWriter:
        self._open("mp4", movflags=_FRAGMENTED)
        self._stack.callback(self._container.close)
        return self

    def write(self, frame: npt.NDArray[np.uint8], timestamp: float, pixel_aspect: float = 1.0) -> None:
        """Append a frame.

        An odd last row or column is repeated, since the format halves the colours' resolution.

        Args:
            frame: `uint8 [H, W, 3]` in BGR; all of one size.
            timestamp: Seconds, later than those of the frames before, or it is shown at the next tick.
            pixel_aspect: Width of a pixel over its height.

        Raises:
            ValueError: The frame is of another type or size than it must be.
            OSError: The file cannot be written.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame is uint8 [H, W, 3], got {frame.dtype} {frame.shape}")
        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._begin = timestamp
            self._open_streams(frame, pixel_aspect)
        timestamp -= self._begin
        if frame.shape[:2] != self.size:
            raise ValueError(f"frame is {frame.shape[:2]}, the video is {self.size}")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        tick = max(round(timestamp * _TICKS), self._last + 1)
        if self._last >= 0:
            if tick - self._last > _LONGEST:
                self.notes.append(f"{self.path}: the gap before second {timestamp:.0f} is cut to 6 hours")
                self._begin, tick = self._begin + timestamp - (self._last + _LONGEST) / _TICKS, self._last + _LONGEST
                timestamp = tick / _TICKS
            self._step = tick - self._last
        self._last = tick
        picture.pts, picture.time_base = self._last, Fraction(1, _TICKS)
        if timestamp - self._key >= _KEY_EVERY:
            picture.pict_type, self._key = PictureType.I, timestamp
        self._mux(self._encoded(picture))
        self._copy_sound(timestamp)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._stack:  # closes the container
                if self._stream is not None and not self._is_broken:
                    self._mux(self._encoded(None))
                    self._copy_sound((self._last + self._step) / _TICKS)  # for as long as the last one is shown
        except OSError:
            if error is None:
                raise
        finally:
            _remove_empty(self.partial)
        self._settle(error)
        if self._stream is None and error is None:
            raise ValueError(f"{self.path}: no frame was written")

    def _open_streams(self, frame: npt.NDArray[np.uint8], pixel_aspect: float) -> None:
        self._add_stream("libx264", (frame.shape[0], frame.shape[1]), "yuv420p", _TICKS)
        self._stream.options = dict(_ENCODER)
        if pixel_aspect != 1:
            self._stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect).limit_denominator(255)
        if self._audio is not None:
            self._sound = self._opened_sound(self._audio)
            self._pending = next(self._sound, None)

    def _opened_sound(self, path: Path) -> Iterator[Any]:
        """Packets of the first sound of a file, from the first frame on, on their way into this one."""
        source = self._stack.enter_context(av.open(os.fspath(path), metadata_errors="replace"))
        sounds = [stream for stream in source.streams.audio if stream.codec_context is not None]
        packets = _heard(source, sounds[0], self._begin) if sounds else iter(())
        first = next(packets, None)
        if first is None:  # a stream without packets would hold up the file's header
            return
        try:
            target = self._container.add_stream_from_template(sounds[0])
        except (av.error.FFmpegError, ValueError) as error:
            self.notes.append(f"{path}: its sound ({sounds[0].codec_context.name}) cannot lie in an MP4 ({error})")
            return
        for packet in chain((first,), packets):
            packet.stream = target
            yield packet

    def _encoded(self, picture: Any) -> list[Any]:
        """Packets of a frame, or what is left of all; the last one is shown as long as the one before it."""
        packets: list[Any] = self._stream.encode(picture)
        for packet in packets:
            packet.duration = self._step
        return packets

    def _copy_sound(self, until: float) -> None:
        """What is heard before a time."""
        while self._pending is not None and float(self._pending.pts * self._pending.time_base) < until:
            self._mux(self._pending)
            self._pending = next(self._sound, None)


class LabelWriter(_Partial):
    """Writes label maps as a lossless video (FFV1, gray, in Matroska), whose ids any reader gives back.

    Its time begins with the first of them.

    Until the end it is `NAME.partial.mkv`, which plays up to its last second or two whatever ends the program.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, ".mkv")

    def __enter__(self) -> LabelWriter:
        self._open("matroska", cluster_time_limit=str(round(1000 * _KEY_EVERY)))
        return self

    def write(self, labels: npt.NDArray[np.uint8], timestamp: float) -> None:
        """Append a label map, `uint8 [H, W]`, all of one size, at a time in seconds.

        Raises:
            ValueError: It is of another type or size than it must be.
            OSError: The file cannot be written.
        """
        if labels.dtype != np.uint8 or labels.ndim != 2:
            raise ValueError(f"a label map is uint8 [H, W], got {labels.dtype} {labels.shape}")
        if self._stream is None:
            self._begin = timestamp
            self._add_stream("ffv1", (labels.shape[0], labels.shape[1]), "gray", 1000)
        if labels.shape != self.size:
            raise ValueError(f"labels are {labels.shape}, the video is {self.size}")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(labels), format="gray")
        self._last = max(round((timestamp - self._begin) * 1000), self._last + 1)  # Matroska counts milliseconds
        picture.pts, picture.time_base = self._last, Fraction(1, 1000)
        self._mux(self._stream.encode(picture))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._stream is not None and not self._is_broken:
                self._mux(self._stream.encode())
        finally:
            with suppress(OSError) if error is not None or self._is_broken else nullcontext():
                self._container.close()
            _remove_empty(self.partial)
        self._settle(error)


def _heard(source: Any, sound: Any, begin: float) -> Iterator[Any]:
    """Packets of a file's sound, whose time begins at a second of the file's.

    The first one ends there: it is decoded, since the next one needs it, and not heard.
    """
    begin += (source.start_time or 0) / av.time_base
    try:
        for packet in source.demux(sound):
            if packet.pts is None or packet.dts is None:
                continue
            shift = round(begin / packet.time_base)
            if packet.pts + (packet.duration or 0) >= shift:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                yield packet
    except av.error.FFmpegError:  # what was there is taken
        return


def _remove_empty(path: Path) -> None:
    """Remove a file into which nothing could be written."""
    if path.exists() and not path.stat().st_size:
        path.unlink()
