"""Several frames in flight: one is copied to the GPU while another is computed and a third is copied back."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from errseg_rt.frames.branches import Branches
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.pipeline.outcome import DeviceSegmentation
from errseg_rt.pipeline.pipeline import DeviceCascade
from errseg_rt.places.place import Gpu

FRAMES = 3
"""Frames in flight at most: one for each of upload, computation and download."""
_KINDS = 4  # kinds of frames whose seats are kept


class Request(NamedTuple):
    """What a frame is asked for; one CUDA graph serves all frames of one kind."""

    height: int
    width: int
    color: str
    confidence: bool
    semantic: bool


@dataclass(eq=False)
class _Seat:
    """Memory of one frame in flight, and the graph that works in it."""

    frame: Any
    pinned: Any
    results: DeviceSegmentation
    replay: Callable[[], None]
    done: Any = None  # event: nothing reads or writes this memory after it


class FrameInFlight:
    """A frame that is under way."""

    def __init__(self, gpu: Gpu, results: DeviceSegmentation, events: Mapping[str, tuple[Any, Any]], done: Any) -> None:
        self._gpu, self._results, self._events, self._done = gpu, results, events, done

    def done(self) -> bool:
        """Whether `result` would return at once."""
        with self._gpu.entered():
            return bool(self._done.query())

    def result(self) -> Segmentation:
        """Wait for the frame.

        Its `timings` are those of the GPU: upload, compute, download. With several frames in flight each begins when
        its turn has come.

        Raises:
            EngineError: A branch gave logits that are not finite.
        """
        with self._gpu.entered():
            self._done.synchronize()
            timings = {name: float(begun.elapsed_time(ended)) for name, (begun, ended) in self._events.items()}
        return self._results.on_host(timings)


class Flight:
    """Sends frames through a cascade; may be used from several threads at once.

    Each seat has memory of its own for a frame and its results, and a CUDA graph that computes these from that. The
    graphs share all other memory: they are replayed on one stream, one after the other. Results are copied into the
    seat within the graph, since the shared memory is the next frame's.

    Args:
        cascade: What a frame goes through.
        gpu: Where.
    """

    def __init__(self, cascade: DeviceCascade, gpu: Gpu) -> None:
        self._cascade, self._gpu = cascade, gpu
        with gpu.entered():
            self._upload, self._compute, self._download = gpu.stream(), gpu.stream(), gpu.stream()
        self._seats: OrderedDict[Request, list[_Seat]] = OrderedDict()
        self._lock = threading.Lock()

    def submit(self, frame: npt.NDArray[np.uint8] | Any, request: Request) -> FrameInFlight:
        """Begin a frame whose results go to the host; waits where `FRAMES` of this kind are under way.

        Args:
            frame: `uint8 [H, W, 3]`, on the host or the GPU. That of the host may be written to again when this
                returns, that of the GPU in the current stream.
            request: What it is asked for.

        Raises:
            EngineError: The GPU has too little memory, or a graph cannot be run on this size.
        """
        with self._lock, self._gpu.entered():
            seat = self._seat(request)
            if seat.done is not None:
                seat.done.synchronize()
            events = {name: (self._gpu.event(), self._gpu.event()) for name in ("upload", "compute", "download")}
            self._bring(frame, seat, *events["upload"])
            self._run(seat, *events["compute"])
            begun, done = events["download"]
            self._download.wait_event(events["compute"][1])
            results = {}
            with self._gpu.on(self._download):
                begun.record(self._download)
                for name, array in seat.results.arrays().items():
                    pinned = self._gpu.pinned(array.shape, dtype_of(array))
                    self._gpu.copy(pinned, array)
                    results[name] = self._gpu.numpy(pinned)
                done.record(self._download)
            seat.done = done
            return FrameInFlight(self._gpu, seat.results.with_arrays(results), events, done)

    def run_on_device(self, frame: npt.NDArray[np.uint8] | Any, request: Request) -> DeviceSegmentation:
        """Enqueue a frame whose results stay on the GPU as torch's tensors, as work of the current stream.

        The host waits only for the seat of an earlier frame, where this one comes from the host. Arguments and what is
        raised as those of `submit`.
        """
        with self._lock, self._gpu.entered():
            seat = self._seat(request)
            if isinstance(frame, np.ndarray) and seat.done is not None:
                seat.done.synchronize()  # its pinned memory may still be read
            self._bring(frame, seat, self._gpu.event(), self._gpu.event())
            self._run(seat, self._gpu.event(), self._gpu.event())
            here, seat.done = self._gpu.current(), self._gpu.event()
            with self._gpu.on(self._compute):
                results = {name: tensor.clone() for name, tensor in seat.results.arrays().items()}
                seat.done.record(self._compute)
            here.wait_event(seat.done)
            for tensor in results.values():
                if tensor.is_cuda:  # made on one stream, used on another
                    tensor.record_stream(here)
            return seat.results.with_arrays(results)

    def prepare(self, request: Request) -> None:
        """Compile and capture what `FRAMES` frames of a kind need; what is raised as by `submit`."""
        with self._lock, self._gpu.entered():
            while len(self._of_kind(request)) < FRAMES:
                self._add(request)

    def branches(self, frame: npt.NDArray[np.uint8] | Any, *, color: str, scale: float) -> Branches:
        """What `DeviceCascade.branches` gives, between the frames in flight."""
        with self._lock, self._gpu.entered():
            ready = self._gpu.event()
            ready.record(self._gpu.current())
            self._compute.wait_event(ready)
            with self._gpu.on(self._compute):
                if isinstance(frame, np.ndarray):
                    pinned, frame = self._pinned(frame), self._gpu.lasting(frame.shape, "uint8")
                    self._gpu.copy(frame, pinned)
                return self._cascade.branches(frame, color=color, scale=scale)

    def _pinned(self, frame: npt.NDArray[np.uint8]) -> Any:
        pinned = self._gpu.pinned(frame.shape, "uint8")
        np.copyto(self._gpu.numpy(pinned), frame)
        return pinned

    def _bring(self, frame: npt.NDArray[np.uint8] | Any, seat: _Seat, begun: Any, ended: Any) -> None:
        """Copy a frame into a seat, before the computation to come."""
        if isinstance(frame, np.ndarray):
            np.copyto(self._gpu.numpy(seat.pinned), frame)
            source = seat.pinned
        else:
            source, ready = frame, self._gpu.event()
            ready.record(self._gpu.current())
            self._upload.wait_event(ready)
        if seat.done is not None:
            self._upload.wait_event(seat.done)
        with self._gpu.on(self._upload):
            begun.record(self._upload)
            self._gpu.copy(seat.frame, source)
            ended.record(self._upload)
        if source is frame:
            self._gpu.current().wait_event(ended)
        self._compute.wait_event(ended)

    def _run(self, seat: _Seat, begun: Any, ended: Any) -> None:
        with self._gpu.on(self._compute):
            begun.record(self._compute)
            seat.replay()
            ended.record(self._compute)

    def _of_kind(self, request: Request) -> list[_Seat]:
        seats = self._seats.setdefault(request, [])
        self._seats.move_to_end(request)
        return seats

    def _seat(self, request: Request) -> _Seat:
        """A seat that is free, or a new one, or the one that will be free first."""
        seats = self._of_kind(request)
        is_free = seats and (seats[0].done is None or seats[0].done.query())
        if not is_free and len(seats) < FRAMES:
            self._add(request)
        seats.append(seats.pop(0))
        return seats[-1]

    def _add(self, request: Request) -> None:
        """Make a seat and put it first."""
        seats = self._seats[request]
        while len(self._seats) > _KINDS:
            self._forget()
        shape, gpu = (request.height, request.width, 3), self._gpu
        options: dict[str, Any] = {
            "color": request.color,
            "confidence": request.confidence,
            "semantic": request.semantic,
        }
        with gpu.on(self._compute):
            frame, pinned = gpu.lasting(shape, "uint8"), gpu.pinned(shape, "uint8")
            gpu.numpy(pinned).fill(0)
            gpu.copy(frame, pinned)
            first = self._cascade.run(frame, **options)
            kept = {name: gpu.lasting(array.shape, dtype_of(array)) for name, array in first.arrays().items()}

            def work() -> None:
                for name, array in self._cascade.run(frame, **options).arrays().items():
                    gpu.copy(kept[name], array)

            replay = gpu.capture(work)
        seats.insert(0, _Seat(frame, pinned, first.with_arrays(kept), replay))

    def _forget(self) -> None:
        """Let go of the kind that was asked for least recently."""
        for seat in self._seats.popitem(last=False)[1]:
            if seat.done is not None:
                seat.done.synchronize()
