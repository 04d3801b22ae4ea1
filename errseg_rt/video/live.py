"""Sources that come by themselves: opened again when they break, for as long as somebody looks."""

from __future__ import annotations

import math
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.errors import SourceError
from errseg_rt.video.decoding import Upright, decoded, pixel_aspect, reason_of, video_stream
from errseg_rt.video.picture import CONNECTED, ENDED, LOST, WAITING, Clock, Faults, Picture
from errseg_rt.video.urls import without_secrets

TRANSPORTS = ("tcp", "udp")
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds before a source is opened again
_MADE_UP = {"mpjpeg", "mjpeg"}  # formats whose stamps FFmpeg invents, 25 a second
_MOST_DRIFT = 2.0  # seconds by which stamps may differ from arrival, before they are set by it anew
_PULL = 0.05  # share of that difference that is made good with each frame: some cameras stamp 25 a second, and give 21
_LOSSY = re.compile(r"(udp|rtp|srt)://|.*\.sdp$", re.IGNORECASE)
_SEGMENTED = re.compile(r"[^?#]*\.(m3u8|mpd)\b", re.IGNORECASE)
_SEGMENT = 30.0  # seconds that come at once in these, with silence in between
_KNOWN = 8  # steps from frame to frame that make a rhythm
_LONGER = 1.5  # times the usual step, after which a frame is said to be missing


@dataclass(frozen=True)
class Patience:
    """How long a live source is waited for.

    Attributes:
        opening: Seconds until it must be open.
        reading: Seconds without a picture after which it hangs, whatever is heard.
        give_up: Seconds without a frame after which it is not opened any more; None: never.
    """

    opening: float = 5.0
    reading: float = 2.5
    give_up: float | None = None


class _Given(NamedTuple):
    """A frame as one opening of a source gives it: upright, with the source's own stamp, if it has one."""

    frame: npt.NDArray[np.uint8]
    stamp: float | None
    pixel_aspect: float = 1.0


class LiveSource(ABC):
    """A source that is opened again with longer and longer waits; see `errseg_rt.video.picture.Source`.

    Args:
        name: What it is called.
        patience: How long it is waited for.
    """

    is_live = True
    length: int | None = None

    def __init__(self, name: str, patience: Patience) -> None:
        self.name, self.patience = name, patience
        self.faults, self.state = Faults(), WAITING
        self.fps: float | None = None

    @abstractmethod
    def opened(self, stop: threading.Event) -> Iterator[_Given]:
        """The frames of one opening, until it breaks, in whatever way, or is over; for good, where `state` says so.

        Raises:
            SourceError: It cannot be opened; at the first opening, that is the end.
        """

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """As `Source.pictures`."""
        index, clock = 0, Clock()
        begun: float | None = None  # the first frame is at 0
        wait, last = _FIRST_WAIT, time.monotonic()
        while not stop.is_set():
            shift: float | None = None  # from the source's stamps to ours, anew at each opening
            try:
                for given in self.opened(stop):
                    self.state, wait, last = CONNECTED, _FIRST_WAIT, time.monotonic()
                    begun = last if begun is None else begun
                    arrival, stamp = last - begun, None
                    if given.stamp is not None:
                        drift = math.inf if shift is None else arrival - (given.stamp + shift)
                        if shift is None or abs(drift) > _MOST_DRIFT:
                            shift = arrival - given.stamp
                        else:
                            shift += _PULL * drift
                        stamp = given.stamp + shift
                    captured = time.time()
                    yield Picture(given.frame, index, clock.stamp(stamp, arrival), captured, given.pixel_aspect)
                    index += 1
                    if stop.is_set():
                        break
            except SourceError:
                if not index:
                    raise
            if stop.is_set() or self.state == ENDED:
                break
            self.state = LOST
            if self.patience.give_up is not None and time.monotonic() - last > self.patience.give_up:
                raise SourceError(f"{self.name}: no frame for {self.patience.give_up:g} seconds; it is given up")
            stop.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
            self.faults.reopened += 1
        self.state = ENDED


class UrlSource(LiveSource):
    """A camera or a stream behind a URL (RTSP, HTTP, UDP, RTP, SRT), or an SDP file, by FFmpeg.

    Args:
        url: Its address.
        transport: For RTSP, `"tcp"`, which loses nothing, or `"udp"`. Where packets may be lost, frames that lack some
            are discarded, and all after them until the next key frame, since they build on them.
        patience: How long it is waited for.
        max_pixels: Largest height times width of a frame that is taken.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: str = "tcp",
        patience: Patience = Patience(),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if transport not in TRANSPORTS:
            raise ValueError(f"transport must be {' or '.join(TRANSPORTS)}, got {transport!r}")
        super().__init__(without_secrets(url), patience)
        self._url, self._transport, self._max_pixels = url, transport, max_pixels
        self._silence = max(patience.reading, _SEGMENT) if _SEGMENTED.match(url) else patience.reading

    def opened(self, stop: threading.Event) -> Iterator[_Given]:
        """As `LiveSource.opened`."""
        with self._container() as container:
            stream = video_stream(container, self.name)
            may_lose = self._transport == "udp" or _LOSSY.match(self._url) is not None
            # Threads by frames hold some of them back; threads by slices do not notice those that are missing, and with
            # HEVC they lock each other out in FFmpeg 7.1.
            stream.thread_type = "NONE"
            has_stamps = not _MADE_UP & set(container.format.name.split(","))
            if has_stamps and stream.average_rate:
                self.fps = float(stream.average_rate)
            is_whole, was_damaged, rhythm, before = not may_lose, False, _Rhythm(), self.faults.corrupt
            upright = Upright()
            try:
                for frame in decoded(container, stream, self.faults, self.name, self._max_pixels, self._silence):
                    if may_lose:
                        # MPEG-TS tells of a loss one packet early: not even a key frame is trusted right after one.
                        is_damaged, is_late = self.faults.corrupt > before, rhythm.misses(frame.time)
                        is_whole = not is_damaged and (
                            (is_whole and not is_late) or (frame.key_frame and not was_damaged)
                        )
                        self.faults.corrupt += is_late
                        was_damaged, before = is_damaged, self.faults.corrupt
                    if is_whole:
                        stamp = frame.time if has_stamps else None
                        yield _Given(upright.picture(frame), stamp, pixel_aspect(stream, upright.swaps_sides))
                    if stop.is_set():
                        return
                if container.duration:  # a file, which is over
                    self.state = ENDED
            except av.error.FFmpegError:  # over a network a stream breaks off, ends or hangs in many ways
                return

    def _container(self) -> Any:
        # A host that is silent for so long is given up before `opening` is over: nothing can interrupt an opening.
        silence = str(round(1e6 * self._silence))
        options = {"rw_timeout": silence}
        if self._url.lower().startswith("rtsp"):
            options = {"timeout": silence, "rtsp_transport": self._transport}
        if self._url.lower().endswith(".sdp"):
            options["protocol_whitelist"] = "file,rtp,udp"
        # Halved: a read that takes too long first gives the frame that a parser had held back, and then is begun again.
        timeout = (self.patience.opening, self._silence / 2)
        try:
            return av.open(self._url, options=options, timeout=timeout, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = without_secrets(reason_of(error))
            raise SourceError(f"{self.name}: cannot be opened ({reason}); check address, user and password") from None


class _Rhythm:
    """Tells by their stamps where frames are missing: after a step longer than those of late, or where a stamp is.

    Two longer ones are no measure, since frames were missing there, too; a third makes it another rhythm.
    """

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=25)
        self._last: float | None = None

    def misses(self, stamp: float | None) -> bool:
        """Whether one is missing before the frame with this stamp."""
        last, self._last = self._last, stamp
        is_known = len(self._steps) >= _KNOWN
        if stamp is None:  # among others that have one it was lost on the way
            self._steps.clear()
            return is_known
        if last is None:
            return False
        is_late = is_known and stamp - last > _LONGER * sorted(self._steps)[-3]
        self._steps.append(stamp - last)
        return is_late


class WebcamSource(LiveSource):
    """A camera at this machine, by OpenCV.

    Args:
        index: Its number, from 0.
        patience: How long it is waited for.
    """

    def __init__(self, index: int, patience: Patience = Patience()) -> None:
        super().__init__(f"webcam {index}", patience)
        self._index = index

    def opened(self, stop: threading.Event) -> Iterator[_Given]:
        """As `LiveSource.opened`; its frames have no stamps that all drivers mean alike."""
        capture = cv2.VideoCapture(self._index)
        try:
            if not capture.isOpened():
                raise SourceError(
                    f"{self.name}: there is no such camera, or another program has it; on Linux look at /dev/video*"
                )
            while not stop.is_set():
                is_there, frame = capture.read()
                if not is_there:
                    return
                yield _Given(np.asarray(frame, np.uint8), None)
        finally:
            capture.release()
