"""Sources that are there already: image files, rendered streets, whatever a program hands on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from errseg_rt.errors import FrameError, SourceError
from errseg_rt.frames.reading import Reading, read_frame
from errseg_rt.scenes import StreetScene
from errseg_rt.video.picture import CONNECTED, ENDED, USUAL_FPS, WAITING, Clock, Faults, Picture


class ImageSource:
    """Image files, one after the other; see `errseg_rt.video.picture.Source`.

    A file that cannot be read is counted, and passed over.

    Args:
        paths: The files, in their order.
        fps: Frames a second: images have no time of their own.
        reading: What is taken of them.
    """

    is_live = False

    def __init__(
        self,
        paths: Sequence[Path],
        fps: float = USUAL_FPS,
        reading: Reading = Reading(),  # noqa: B008 - frozen
    ) -> None:
        if not paths:
            raise SourceError("no image file to read; give a folder that holds some")
        self.name = f"{len(paths)} images in {paths[0].parent}"
        self.faults, self.state = Faults(), WAITING
        self.fps: float | None = fps
        self.length: int | None = len(paths)
        self._paths, self._rate, self._reading = paths, fps, reading

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """As `Source.pictures`; an image that is passed over leaves its place in time empty."""
        self.state, index, fault = CONNECTED, 0, ""
        for position, path in enumerate(self._paths):
            if stop.is_set():
                break
            try:
                frame = read_frame(path, self._reading)
            except FrameError as error:
                self.faults.corrupt += 1
                fault = fault or str(error)
                continue
            yield Picture(frame, index, position / self._rate)
            index += 1
        if not index and fault:
            raise SourceError(f"{self.name}: none can be read: {fault}")
        self.state = ENDED


class SceneSource:
    """A street that is rendered, without end; see `errseg_rt.video.picture.Source`.

    Args:
        seed: Which street.
        height: Of a frame in pixels.
        width: Likewise.
        fps: Frames a second.
    """

    is_live = False
    length: int | None = None

    def __init__(self, seed: int, height: int = 360, width: int = 480, fps: float = USUAL_FPS) -> None:
        self.name = f"scene:{seed}"
        self.faults, self.state = Faults(), WAITING
        self.fps: float | None = fps
        self._scene, self._rate = StreetScene(seed, height, width, fps), fps

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """As `Source.pictures`."""
        self.state, index = CONNECTED, 0
        while not stop.is_set():
            yield Picture(self._scene.frame(index).frame, index, index / self._rate)
            index += 1
        self.state = ENDED


class IterableSource:
    """Frames that a program hands on; see `errseg_rt.video.picture.Source`.

    Args:
        frames: BGR `uint8 [H, W, 3]` each, alone or in a pair with its time in seconds; without, its arrival counts.
    """

    is_live = False
    fps: float | None = None
    length: int | None = None

    def __init__(self, frames: Iterable[Any]) -> None:
        self.name = f"frames of a {type(frames).__name__}"
        self.faults, self.state = Faults(), WAITING
        self._frames = frames

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """As `Source.pictures`; what the iterable raises, it raises."""
        self.state, clock, begun = CONNECTED, Clock(), time.monotonic()
        for index, given in enumerate(self._frames):
            if stop.is_set():
                break
            frame, stamp = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
            if not isinstance(frame, np.ndarray):
                raise FrameError(
                    f"{self.name}: item {index} is a {type(frame).__name__}; frames are NumPy arrays uint8 [H, W, 3], "
                    "alone or in a pair with their time in seconds"
                )
            arrival = time.monotonic() - begun
            # A copy: whoever hands frames on may use their memory again.
            yield Picture(frame.copy(), index, clock.stamp(None if stamp is None else float(stamp), arrival))
        self.state = ENDED


class Paced:
    """A source that is over faster than its own time, held back to it, as a camera would give it.

    Args:
        source: The source.
    """

    is_live = True

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """As `Source.pictures`."""
        begun: float | None = None
        for picture in self._source.pictures(stop):
            begun = time.monotonic() - picture.timestamp if begun is None else begun
            if stop.wait(max(0.0, begun + picture.timestamp - time.monotonic())):
                break
            yield Picture(picture.frame, picture.index, picture.timestamp, time.time(), picture.pixel_aspect)
