"""A runtime over a source: decoding, segmenting and whatever the caller does overlap, and order is kept."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.options import Options
from errseg_rt.video.picture import Picture, Source

POLICIES = ("all", "latest")
_AHEAD = 2  # frames that are decoded before somebody takes them, where none may be lost
_RECENT = 1000  # frames that times are told of
_LATE = 1e-3  # seconds by which a frame may come before its time
_END = 3.0  # seconds within which the threads end, those apart that a driver holds


class Segmenter(Protocol):
    """What a stream asks of a `Runtime`."""

    options: Options

    @property
    def segment(self) -> Callable[..., Segmentation]:
        """As `Runtime.segment`."""
        ...


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame of a stream, segmented.

    Attributes:
        result: What the runtime says of it.
        frame: BGR `uint8 [H, W, 3]`.
        index: Its number among the frames of the source, counted from 0.
        timestamp: Seconds of the source's time.
        captured_at: When a live source gave it, in seconds since the epoch; None for others.
        dropped: How many frames were dropped since the shot before, because nobody was free for them.
        pixel_aspect: Width of a pixel over its height.
        latency: Seconds from when a live source gave it to its result; None for others.
    """

    result: Segmentation
    frame: npt.NDArray[np.uint8]
    index: int
    timestamp: float
    captured_at: float | None
    dropped: int
    pixel_aspect: float = 1.0
    latency: float | None = None


@dataclass(frozen=True)
class Stats:
    """What has happened in a stream so far.

    Attributes:
        read: Frames that the source gave.
        segmented: Frames that were segmented.
        dropped: Frames that were dropped, because nobody was free for them.
        corrupt: Packets or frames of the source that could not be decoded, or were damaged.
        reopened: How often the source was opened again.
        latency: Seconds from a live source to the result, `median` and `p95` of recent frames; empty for others.
        milliseconds: Median time by step of recent frames: `read`, which is decoding and waiting for the source, and
            those of `Segmentation.timings`.
        state: Of the source: `"waiting"`, `"connected"`, `"lost"` or `"ended"`.
    """

    read: int
    segmented: int
    dropped: int
    corrupt: int
    reopened: int
    latency: Mapping[str, float]
    milliseconds: Mapping[str, float]
    state: str


@dataclass(eq=False)
class _Job:
    picture: Picture
    dropped: int
    asked: Mapping[str, Any]
    result: Segmentation | None = None
    error: BaseException | None = None
    finished_at: float = 0.0

    @property
    def is_done(self) -> bool:
        return self.result is not None or self.error is not None


@dataclass
class _Counts:
    read: int = 0
    segmented: int = 0
    dropped: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    laps: deque[Mapping[str, float]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    reads: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))


class Stream:
    """Shots of a source, in their order; use it in a `with` block, and iterate over it once.

    Several streams may share a runtime; one whose source is dead holds up no other.

    Args:
        runtime: Segments the frames.
        source: Gives them.
        policy: `"latest"`: the newest frame is taken, and those that nobody was free for are dropped, so that latency
            does not grow; `"all"`: none is lost. None: `"latest"` for live sources.
        stride: Every how many frames one is taken.
        max_fps: Frames a second of the source's time that are taken at most; None: all.
        workers: Frames that are segmented side by side; None: three on a GPU, on a CPU as many as it has cores for, by
            the runtime's threads.
        asked: Other arguments of `Runtime.segment`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        runtime: Segmenter,
        source: Source,
        *,
        policy: str | None = None,
        stride: int = 1,
        max_fps: float | None = None,
        workers: int | None = None,
        **asked: Any,
    ) -> None:
        if policy not in (None, *POLICIES):
            raise ValueError(f"policy must be {' or '.join(POLICIES)}, got {policy!r}")
        for name, value in (("stride", stride), ("workers", workers)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if max_fps is not None and not 0 < max_fps < math.inf:
            raise ValueError(f"max_fps must be a positive number, got {max_fps!r}")
        self.source, self.policy = source, policy or default_policy(source)
        self._runtime, self._stride, self._asked = runtime, stride, dict(asked)
        self._apart, self._due = 0.0 if max_fps is None else 1 / max_fps, -math.inf
        self.workers = workers or runtime.options.side_by_side
        self._changed = threading.Condition()
        self._stop, self._is_over = threading.Event(), False
        self._fault: BaseException | None = None  # of the source
        self._inbox: deque[Picture] = deque()
        self._jobs: deque[_Job] = deque()  # in the order of the frames
        self._dropped, self._counts = 0, _Counts()
        self._threads: list[threading.Thread] = []
        self._until = math.inf  # when closing is over, whoever began it

    def change(self, **asked: Any) -> None:
        """Change arguments of `Runtime.segment`, such as `threshold`, `budget` or `deadline_ms`, for frames to come."""
        with self._changed:
            self._asked |= asked

    @property
    def stats(self) -> Stats:
        """What has happened so far."""
        with self._changed:
            counts, faults = self._counts, self.source.faults
            latencies, laps, reads = sorted(counts.latencies), list(counts.laps), list(counts.reads)
            steps = dict.fromkeys(step for lap in laps for step in lap)
            times = {"read": statistics.median(reads)} if reads else {}
            times |= {step: statistics.median(lap[step] for lap in laps if step in lap) for step in steps}
            latency = {}
            if latencies:
                latency = {"median": statistics.median(latencies), "p95": latencies[int(0.95 * (len(latencies) - 1))]}
            return Stats(
                counts.read,
                counts.segmented,
                counts.dropped,
                faults.corrupt,
                faults.reopened,
                latency,
                times,
                self.source.state,
            )

    def __enter__(self) -> Stream:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Shot:
        """The next shot.

        Raises:
            SourceError: The source cannot be opened or read on; the frames before are given first.
            FrameError, EngineError, ValueError: As `Runtime.segment`.
        """
        self._start()
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready() or self._stop.is_set())
            if self._stop.is_set():
                raise StopIteration
            if not self._jobs:
                self._stop.set()
                if self._fault is not None:
                    raise self._fault
                raise StopIteration
            job = self._jobs.popleft()
            self._changed.notify_all()
        if job.result is None:
            self.close()
            raise job.error or RuntimeError("a frame came to nothing")
        picture = job.picture
        return Shot(
            job.result,
            picture.frame,
            picture.index,
            picture.timestamp,
            picture.captured_at,
            job.dropped,
            picture.pixel_aspect,
            None if picture.captured_at is None else max(0.0, job.finished_at - picture.captured_at),
        )

    def close(self) -> None:
        """End all threads. One that a camera's driver holds is left behind; it ends with the process."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._until = min(self._until, time.monotonic() + _END)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, self._until - time.monotonic()))

    def _start(self) -> None:
        if self._threads or self._stop.is_set():
            return
        targets = [self._read, *[self._work] * self.workers]
        self._threads = [threading.Thread(target=target, daemon=True, name="errseg-stream") for target in targets]
        for thread in self._threads:
            thread.start()

    def _is_ready(self) -> bool:
        """Whether the next shot is there, or there is none any more."""
        if self._jobs:
            return self._jobs[0].is_done
        return self._is_over and not self._inbox

    def _read(self) -> None:
        """What the reading thread does."""
        try:
            before = time.monotonic()
            for picture in self.source.pictures(self._stop):
                with self._changed:
                    self._counts.read += 1
                    self._counts.reads.append(1000 * (time.monotonic() - before))
                if picture.index % self._stride == 0 and self._is_due(picture.timestamp):
                    self._offer(picture)
                if self._stop.is_set():
                    break
                before = time.monotonic()
        except BaseException as error:  # whatever it is, the caller is told
            self._fault = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _is_due(self, timestamp: float) -> bool:
        """Whether a frame is taken, at the rate that is wanted at most."""
        if not self._apart:
            return True
        if timestamp < self._due - _LATE:
            return False
        # By a grid of times, so that frames that come a little late do not add up; after a gap by a new one.
        self._due = timestamp + self._apart if timestamp - self._due > self._apart else self._due + self._apart
        return True

    def _offer(self, picture: Picture) -> None:
        """Hand a frame on, in the stead of an older one, or when there is room."""
        with self._changed:
            if self.policy == "latest":
                self._dropped += len(self._inbox)
                self._counts.dropped += len(self._inbox)
                self._inbox.clear()
            else:
                self._changed.wait_for(lambda: len(self._inbox) < _AHEAD or self._stop.is_set())
            self._inbox.append(picture)
            self._changed.notify_all()

    def _work(self) -> None:
        """What each worker does."""
        most = self.workers + (_AHEAD if self.policy == "all" else 0)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._stop.is_set()
                        or (self._inbox and len(self._jobs) < most)
                        or (self._is_over and not self._inbox)
                    )
                )
                if self._stop.is_set() or not self._inbox:
                    return
                job = _Job(self._inbox.popleft(), self._dropped, dict(self._asked))
                self._dropped = 0
                self._jobs.append(job)
                self._changed.notify_all()
            try:
                result, error = self._runtime.segment(job.picture.frame, **job.asked), None
            except BaseException as fault:  # whatever it is, the caller is told
                result, error = None, fault
            with self._changed:
                job.finished_at, job.result, job.error = time.time(), result, error
                if result is not None:
                    self._counts.segmented += 1
                    self._counts.laps.append(result.timings)
                    if job.picture.captured_at is not None:
                        self._counts.latencies.append(job.finished_at - job.picture.captured_at)
                self._changed.notify_all()


def default_policy(source: Source) -> str:
    """What becomes of frames for which nobody is free."""
    return "latest" if source.is_live else "all"
