"""The CPU as a place: operations are done when their call returns, on NumPy arrays."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.errors import FrameError
from errseg_rt.kernels.calibrate.cpu import Segments, calibrate
from errseg_rt.kernels.finite.reference import finite_reference
from errseg_rt.kernels.fuse_labels.cpu import fuse_labels
from errseg_rt.kernels.instances.cpu import instances
from errseg_rt.kernels.instances.spec import InstanceSpec
from errseg_rt.kernels.preprocess.cpu import preprocess
from errseg_rt.kernels.refine.cpu import refine
from errseg_rt.kernels.refine.weights import RefineWeights
from errseg_rt.kernels.select.cpu import select
from errseg_rt.kernels.select.layers import Layers
from errseg_rt.kernels.select.operands import Bounds, Selection

Size = tuple[int, int]


class Cpu:
    """A `Place`; several threads may work in it at once.

    Args:
        threads: Of one frame.
    """

    is_immediate, name = True, "cpu"
    knots, calibrate, finite = Segments.of, staticmethod(calibrate), staticmethod(finite_reference)

    def __init__(self, threads: int) -> None:
        self.preprocess = partial(preprocess, threads=threads)
        self.refine = partial(refine, threads=threads)
        self.fuse_labels = partial(fuse_labels, threads=threads)
        self.instances = partial(instances, threads=threads)

    def select(self, error_logit: npt.NDArray[np.floating], bounds: Bounds, *, seen: Size, layers: Layers) -> Selection:
        """As `Place` says."""
        return select(error_logit, bounds.threshold, seen=seen, layers=layers, budget=bounds.budget)

    def weights(self, weights: RefineWeights, dtype: str) -> RefineWeights:
        """As they are: the kernel lays them out by itself."""
        return weights

    def things(self, spec: InstanceSpec | None, classes: int) -> InstanceSpec | None:
        """The spec itself."""
        return spec

    def entered(self) -> AbstractContextManager[object]:
        """Nothing is to be done, here and in the next two."""
        return nullcontext()

    def begin(self) -> None:
        """As `Place` says."""

    def wait(self) -> None:
        """As `Place` says."""

    def marks(self) -> Stopwatch:
        """As `Place` says."""
        return Stopwatch()

    def taken(self, frame: Any) -> Any:
        """As `Place` says: only NumPy arrays lie here."""
        raise FrameError(f"a frame is a NumPy array uint8 [H, W, 3], got {type(frame).__name__}")

    def upload(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The frame itself."""
        return frame

    def download(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
        """The arrays themselves."""
        return arrays

    def host(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The array itself."""
        return array


class Stopwatch:
    """`Marks` by the host's clock."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """As `Marks` says."""
        now = time.perf_counter()
        self._laps[name] = 1000 * (now - self._last)
        self._last = now

    def elapsed(self) -> float:
        """As `Marks` says."""
        return sum(self._laps.values())

    def done(self) -> bool:
        """As `Marks` says."""
        return True

    def milliseconds(self) -> Mapping[str, float]:
        """As `Marks` says."""
        return self._laps
