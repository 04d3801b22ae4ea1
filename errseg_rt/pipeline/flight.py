"""Several frames in flight: one is copied to the GPU while another is computed and a third is copied back."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.input_spec import Size
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.frame import Ask
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.kernels.select.operands import Bounds
from errseg_rt.options import Limits
from errseg_rt.pipeline.in_flight import FrameInFlight
from errseg_rt.pipeline.outcome import Outcome
from errseg_rt.pipeline.pace import LatePace
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.gpu import EventMarks
from errseg_rt.places.place import Gpu

FRAMES = 3
"""Frames in flight at most: one for each of upload, computation and download."""
_KINDS, _SIZES = 4, 64  # kinds of frames whose seats are kept, and sizes whose pace is
_CAPTURING = threading.Lock()  # CUDA allows one capture at a time in a process, whatever it captures


class Kind(NamedTuple):
    """Frames that one CUDA graph serves."""

    size: Size
    ask: Ask


@dataclass(eq=False)
class _Seat:
    """Memory of one frame in flight, and the graph that works in it."""

    frame: Any
    pinned: Any
    bounds: Any
    results: Outcome
    replay: Callable[[], None]
    held: list[object]  # what is replayed needs it
    words: Any  # pinned: the bounds of the latest frame
    done: Any  # event: nothing reads or writes this memory after it


class Flight:
    """Sends frames through a pipeline on a GPU; may be used from several threads at once.

    Each seat has memory of its own for a frame and its results, and a CUDA graph that computes these from that. The
    graphs share all other memory: they are replayed on one stream, one after the other. Results are copied into the
    seat within the graph, since the shared memory is the next frame's.

    Args:
        pipeline: What a frame goes through; its place is a GPU.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self._gpu = pipeline, cast(Gpu, pipeline.place)
        with self._gpu.entered():
            self._upload, self._compute, self._download = (self._gpu.stream() for _ in range(3))
        self._seats: OrderedDict[Kind, list[_Seat]] = OrderedDict()
        self._pace = lru_cache(_SIZES)(lambda size: LatePace())
        self._lock = threading.Lock()

    def submit(self, frame: npt.NDArray[np.uint8] | Any, ask: Ask, limits: Limits) -> FrameInFlight:
        """Begin a frame whose results go to the host; waits where `FRAMES` of this kind are under way.

        Its timings are those of the GPU: upload, compute, download. With several frames in flight each begins when its
        turn has come.

        Args:
            frame: `uint8 [H, W, 3]`, on the host or the GPU. That of the host may be written to again when this
                returns, that of the GPU in the current stream.
            ask: What is wanted of it.
            limits: What it may cost.

        Raises:
            EngineError: The GPU has too little memory, or a graph cannot be run on this size.
        """
        with self._lock, self._gpu.entered():
            size = _size(frame)
            seat, marks = self._seat(Kind(size, ask)), EventMarks(self._gpu)
            seat.done.synchronize()
            self._bring(frame, self._bounds(size, limits), seat, marks)
            self._run(seat, marks)
            self._download.wait_event(marks.last)
            with marks.step("download", self._download):
                downloaded = self._gpu.download(seat.results.arrays())
            seat.done = marks.last
            learn = partial(_learn, self._pace(size), self.pipeline.plan(size).dense_work)
            return FrameInFlight(seat.results.with_arrays(downloaded), marks, held=self, seen=learn)

    def on_device(self, frame: npt.NDArray[np.uint8] | Any, ask: Ask, limits: Limits) -> Outcome:
        """Enqueue a frame whose results stay on the GPU as torch's tensors, as work of the current stream.

        The host waits only for the seat of an earlier frame, where this one comes from the host. Arguments and what is
        raised as those of `submit`; EngineError also where there is no torch, ValueError for a deadline.
        """
        if limits.deadline_ms is not None:
            raise ValueError("deadline_ms is learned from results that come to the host: give a budget instead")
        with self._lock, self._gpu.entered():
            size = _size(frame)
            seat, marks = self._seat(Kind(size, ask)), EventMarks(self._gpu)
            if isinstance(frame, np.ndarray):
                seat.done.synchronize()  # its pinned memory may still be read
            self._bring(frame, self._bounds(size, limits), seat, marks)
            self._run(seat, marks)
            here = self._gpu.current()
            with marks.step("copy", self._compute):
                results = self._gpu.given_away(seat.results.arrays(), here)
            seat.done = marks.last
            here.wait_event(seat.done)
            return seat.results.with_arrays(results)

    def branches(self, frame: npt.NDArray[np.uint8] | Any, *, color: str = "bgr", scale: float = 1.0) -> Branches:
        """What `Pipeline.branches` gives, between the frames in flight."""
        with self._lock, self._gpu.entered():
            ready = self._gpu.event()
            ready.record(self._gpu.current())
            self._compute.wait_event(ready)
            with self._gpu.on(self._compute):
                if isinstance(frame, np.ndarray):
                    frame = self._gpu.upload(frame)
                return self.pipeline.branches(frame, color=color, scale=scale)

    def prepare(self, size: Size) -> None:
        """Compile and capture what `FRAMES` frames of a size need; what is raised as by `submit`."""
        kind = Kind(size, Ask())
        with self._lock, self._gpu.entered():
            while len(self._of_kind(kind)) < FRAMES:
                self._add(kind)

    def _bounds(self, size: Size, limits: Limits) -> Bounds:
        """What selection goes by. A deadline becomes a budget by the frames that are over, so one frame late."""
        plan = self.pipeline.plan(size)
        if limits.deadline_ms is None:
            return plan.bounds(limits)
        return Bounds(limits.threshold, self._pace(size).budget(limits.deadline_ms, plan.dense_work))

    def _bring(self, frame: npt.NDArray[np.uint8] | Any, bounds: Bounds, seat: _Seat, marks: EventMarks) -> None:
        """Copy a frame and its bounds into a seat, before the computation to come."""
        is_here = not isinstance(frame, np.ndarray)
        if is_here:
            ready = self._gpu.event()
            ready.record(self._gpu.current())
            self._upload.wait_event(ready)
        else:
            np.copyto(self._gpu.host(seat.pinned), frame)
        self._upload.wait_event(seat.done)
        # New memory, held until the seat's next frame: that of the frame before may still be read.
        words = seat.words = self._gpu.pinned((2,), "int64")
        np.copyto(self._gpu.host(words), bounds.words())
        with marks.step("upload", self._upload):
            self._gpu.copy(seat.frame, frame if is_here else seat.pinned)
            self._gpu.copy(seat.bounds, words)
        if is_here:
            self._gpu.current().wait_event(marks.last)
        self._compute.wait_event(marks.last)

    def _run(self, seat: _Seat, marks: EventMarks) -> None:
        with marks.step("compute", self._compute):
            seat.replay()

    def _of_kind(self, kind: Kind) -> list[_Seat]:
        seats = self._seats.setdefault(kind, [])
        self._seats.move_to_end(kind)
        return seats

    def _seat(self, kind: Kind) -> _Seat:
        """A seat that is free, or a new one, or the one that will be free first."""
        seats = self._of_kind(kind)
        is_free = seats and seats[0].done.query()
        if not is_free and len(seats) < FRAMES:
            self._add(kind)
        seats.append(seats.pop(0))
        return seats[-1]

    def _add(self, kind: Kind) -> None:
        """Make a seat and put it first."""
        seats = self._seats[kind]
        while len(self._seats) > _KINDS:
            self._forget()
        shape, gpu = (*kind.size, 3), self._gpu

        def run() -> Outcome:
            return self.pipeline.run(frame, kind.ask, bounds, EventMarks(gpu))

        with gpu.on(self._compute), gpu.holding() as held:
            frame, pinned = gpu.lasting(shape, "uint8"), gpu.pinned(shape, "uint8")
            bounds, words = gpu.lasting((2,), "int64"), gpu.pinned((2,), "int64")
            gpu.host(pinned).fill(0)
            np.copyto(gpu.host(words), Bounds(self.pipeline.manifest.threshold).words())
            gpu.copy(frame, pinned)
            gpu.copy(bounds, words)
            first = run()
            kept = {name: gpu.lasting(array.shape, dtype_of(array)) for name, array in first.arrays().items()}

            def work() -> None:
                for name, array in run().arrays().items():
                    gpu.copy(kept[name], array)

            with _CAPTURING:
                replay = gpu.capture(work)
            ready = gpu.event()
            ready.record(self._compute)  # the first frame's upload waits for what was enqueued here
        seats.insert(0, _Seat(frame, pinned, bounds, first.with_arrays(kept), replay, held, words, ready))

    def _forget(self) -> None:
        """Let go of the kind that was asked for least recently."""
        for seat in self._seats.popitem(last=False)[1]:
            seat.done.synchronize()
        self._gpu.renew_scratch()


def _learn(pace: LatePace, dense_work: int, result: Segmentation) -> None:
    pace.saw(result.work * dense_work, sum(result.timings.values()))


def _size(frame: Any) -> Size:
    return int(frame.shape[0]), int(frame.shape[1])
