"""What every GPU shares as a place: operations are launches, and time is kept by events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.calibrate.launches import enqueue_calibrate
from errseg_rt.kernels.finite.launches import enqueue_finite
from errseg_rt.kernels.fuse_labels.launches import enqueue_fuse_labels
from errseg_rt.kernels.instances.launches import DeviceThings, enqueue_instances
from errseg_rt.kernels.instances.spec import InstanceSpec
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.kernels.preprocess.launches import enqueue_preprocess
from errseg_rt.kernels.refine.launches import enqueue_refine
from errseg_rt.kernels.refine.operands import DeviceWeights
from errseg_rt.kernels.refine.weights import RefineWeights
from errseg_rt.kernels.select.launches import enqueue_select
from errseg_rt.places.place import Gpu


class Launches:
    """The operations of a `Place` as launches, for a `Launcher` to inherit from; none waits for the GPU."""

    is_immediate = False
    _held: list[object] | None = None  # of `holding`
    _workspace: Any = None

    def weights(self: Gpu, weights: RefineWeights, dtype: str) -> DeviceWeights:
        """As `Place` says."""
        return DeviceWeights.brought(weights, self.bring, dtype)

    def knots(self: Gpu, logits: Sequence[float], probabilities: Sequence[float]) -> Any:
        """As `Place` says."""
        return self.bring(np.array((logits, probabilities), np.float32), "float32")

    def things(self: Gpu, spec: InstanceSpec | None, classes: int) -> DeviceThings | None:
        """As `Place` says."""
        return None if spec is None else DeviceThings.brought(spec, classes, self.bring)

    preprocess = enqueue_preprocess
    select = enqueue_select
    refine = enqueue_refine
    fuse_labels = enqueue_fuse_labels
    instances = enqueue_instances
    calibrate = enqueue_calibrate
    finite = enqueue_finite

    def upload(self: Gpu, frame: npt.NDArray[np.uint8]) -> Any:
        """As `Place` says."""
        pinned, array = self.pinned(frame.shape, "uint8"), self.lasting(frame.shape, "uint8")
        np.copyto(self.host(pinned), frame)
        self.copy(array, pinned)
        return array

    def download(self: Gpu, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `Place` says, in the current stream."""
        found = {}
        for name, array in arrays.items():
            found[name] = self.pinned(array.shape, dtype_of(array))
            self.copy(found[name], array)
        return found

    def wait(self: Gpu) -> None:
        """Until all that the current stream holds is done."""
        done = self.event()
        done.record(self.current())
        done.synchronize()

    def marks(self: Gpu) -> EventMarks:
        """As `Place` says."""
        return EventMarks(self)

    @contextmanager
    def holding(self) -> Iterator[list[object]]:
        """As `Gpu` says; for one thread at a time."""
        held = self._held = []
        try:
            yield held
        finally:
            self._held = None

    def hold(self, thing: object) -> None:
        """As `Gpu` says."""
        if self._held is not None:
            self._held.append(thing)

    def workspace(self, size: int) -> Any:
        """As `Gpu` says."""
        if self._workspace is None or self._workspace.shape[0] < size:
            self._workspace = cast("Gpu", self).lasting((size,), "uint8")
        return self._workspace

    def renew_scratch(self) -> None:
        """Nothing is to be done: a graph holds the blocks that it uses, and larger ones take their place."""


class EventMarks:
    """`Marks` by events: steps may lie in streams of their own, and overlap."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._steps: dict[str, tuple[Any, Any]] = {}
        self.last: Any = None  # the event at which the latest step ends

    @contextmanager
    def step(self, name: str, stream: Any) -> Iterator[None]:
        """Time what a `with` block enqueues in a stream, which becomes the current one."""
        begun, ended = self._gpu.event(), self._gpu.event()
        with self._gpu.on(stream):
            begun.record(stream)
            yield
            ended.record(stream)
        self._steps[name] = begun, ended
        self.last = ended

    def lap(self, name: str) -> None:
        """Nothing: what is enqueued has not been done."""

    def elapsed(self) -> float:
        """As `Marks` says."""
        return 0.0

    def done(self) -> bool:
        """As `Marks` says."""
        return bool(self.last.query())

    def milliseconds(self) -> Mapping[str, float]:
        """As `Marks` says."""
        self.last.synchronize()
        return {name: float(begun.elapsed_time(ended)) for name, (begun, ended) in self._steps.items()}
