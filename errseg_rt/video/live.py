"""Sources that come by themselves: opened again when they break, for as long as somebody looks."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.errors import SourceError
from errseg_rt.video.decoding import decoded, pixel_aspect, reason_of, upright, video_stream
from errseg_rt.video.picture import CONNECTED, ENDED, LOST, WAITING, Clock, Faults, Picture
from errseg_rt.video.urls import without_secrets

TRANSPORTS = ("tcp", "udp")
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds before a source is opened again
_MADE_UP = {"mpjpeg", "mjpeg"}  # formats whose stamps FFmpeg invents, 25 a second
_MOST_DRIFT = 0.5  # seconds by which stamps may differ from arrival, before arrival counts


@dataclass(frozen=True)
class Patience:
    """How long a live source is waited for.

    Attributes:
        opening: Seconds until it must be open.
        reading: Seconds without a frame after which it hangs.
        give_up: Seconds without a frame after which it is not opened any more; None: never.
    """

    opening: float = 5.0
    reading: float = 2.0
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
        """The frames of one opening, until it breaks, in whatever way, or is over.

        Raises:
            SourceError: It cannot be opened; at the first opening, that is the end.
        """

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """As `Source.pictures`."""
        begun, index, clock = time.monotonic(), 0, Clock()
        wait, last = _FIRST_WAIT, begun
        while not stop.is_set():
            shift: float | None = None  # from the source's stamps to ours, anew at each opening
            try:
                for given in self.opened(stop):
                    self.state, wait, last = CONNECTED, _FIRST_WAIT, time.monotonic()
                    arrival = last - begun
                    if given.stamp is not None and (shift is None or abs(given.stamp + shift - arrival) > _MOST_DRIFT):
                        shift = arrival - given.stamp
                    stamp = None if given.stamp is None or shift is None else given.stamp + shift
                    captured = time.time()
                    yield Picture(given.frame, index, clock.stamp(stamp, arrival), captured, given.pixel_aspect)
                    index += 1
                    if stop.is_set():
                        break
            except SourceError:
                if not index:
                    raise
            if stop.is_set():
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
        transport: For RTSP, `"tcp"`, which loses nothing, or `"udp"`: frames with lost packets are discarded then, and
            all until the next key frame.
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

    def opened(self, stop: threading.Event) -> Iterator[_Given]:
        """As `LiveSource.opened`."""
        with self._container() as container:
            stream = video_stream(container, self.name)
            stream.thread_type = "SLICE"  # threads by frames would hold two of them back
            has_stamps = not _MADE_UP & set(container.format.name.split(","))
            if has_stamps and stream.average_rate:
                self.fps = float(stream.average_rate)
            is_whole = self._transport == "tcp"
            try:
                for frame in decoded(container, stream, self.faults, self.name, self._max_pixels):
                    is_whole = is_whole or frame.key_frame
                    if self._transport == "udp" and frame.is_corrupt:
                        is_whole = False
                    if is_whole:
                        stamp = frame.time if has_stamps else None
                        yield _Given(upright(frame), stamp, pixel_aspect(stream, frame.rotation))
                    if stop.is_set():
                        return
            except av.error.FFmpegError:  # over a network a stream breaks off, ends or hangs in many ways
                return

    def _container(self) -> Any:
        options = {"fflags": "discardcorrupt"} if self._transport == "udp" else {}
        if self._url.lower().startswith("rtsp"):
            options["rtsp_transport"] = self._transport
        if self._url.lower().endswith(".sdp"):
            options["protocol_whitelist"] = "file,rtp,udp"
        timeout = (self.patience.opening, self.patience.reading)
        try:
            return av.open(self._url, options=options, timeout=timeout, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = without_secrets(reason_of(error))
            raise SourceError(f"{self.name}: cannot be opened ({reason}); check address, user and password") from None


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
