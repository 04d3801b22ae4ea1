"""A frame in time, and what gives them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

CONNECTED, WAITING, LOST, ENDED = "connected", "waiting", "lost", "ended"
"""States of a source: it gives frames, it is being opened, it is being opened again after it broke, it is over."""

USUAL_FPS = 25.0
"""Frames a second of what has no time of its own, unless somebody says otherwise."""

_BACK = 0.1  # seconds by which stamps may be out of order, as FFmpeg takes it, before they are said to start anew


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame of a source.

    Attributes:
        frame: BGR `uint8 [H, W, 3]`, upright.
        index: Its number among the frames of the source, counted from 0.
        timestamp: Seconds of the source's own time; never less than that of the frame before.
        captured_at: When a live source gave it, in seconds since the epoch; None where it lay there already.
        pixel_aspect: Width of a pixel over its height, as it shall be shown.
    """

    frame: npt.NDArray[np.uint8]
    index: int
    timestamp: float
    captured_at: float | None = None
    pixel_aspect: float = 1.0


@dataclass
class Faults:
    """What went wrong with a source, and was passed over.

    Attributes:
        corrupt: Packets that could not be decoded, and frames that were damaged.
        reopened: How often it was opened again.
    """

    corrupt: int = 0
    reopened: int = 0


class Source(Protocol):
    """Gives pictures, in one thread.

    Attributes:
        name: What it is called; a password in a URL is not part of it.
        is_live: Whether its frames come by themselves, in their own time, and are lost when nobody takes them.
        faults: What was passed over.
        state: `CONNECTED`, `WAITING`, `LOST` or `ENDED`.
    """

    name: str
    is_live: bool
    faults: Faults
    state: str

    @property
    def fps(self) -> float | None:
        """Frames a second, where anybody knows it."""
        ...

    @property
    def length(self) -> int | None:
        """How many frames it says it has; some lie."""
        ...

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """Its pictures, until it is over or `stop` is set; what it holds open is closed then.

        Raises:
            SourceError: It cannot be opened or read.
        """
        ...


class Clock:
    """Time stamps that never run backwards; where a source has none of its own, the time of arrival counts."""

    def __init__(self) -> None:
        self._last: float | None = None

    def stamp(self, given: float | None, otherwise: float) -> float:
        """The stamp of the next frame: as `given`, or else as it arrived; never before the last one."""
        stamp = otherwise if given is None else given
        self._last = stamp if self._last is None else max(stamp, self._last)
        return self._last


class Timeline:
    """Time of what is read from a disk: as its stamps say, and by the usual step where they are missing or start anew.

    Args:
        step: Seconds from one frame to the next, usually.
    """

    def __init__(self, step: float) -> None:
        self._step, self._shift = step, 0.0
        self._last: float | None = None

    def stamp(self, given: float | None) -> float:
        """The stamp of the next frame; never before the last one."""
        if self._last is None:
            self._last = given or 0.0
            return self._last
        next_one = self._last + self._step
        stamp = next_one if given is None else given + self._shift
        if stamp < self._last - _BACK:  # as where recordings were joined
            self._shift += next_one - stamp
            stamp = next_one
        self._last = max(stamp, self._last)
        return self._last
