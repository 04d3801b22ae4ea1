"""What `Runtime` does on a GPU: frames of any size, from the host or the GPU, to results on either."""

from __future__ import annotations

from typing import Any

import numpy as np

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines import check_device_engine, open_device_engine
from errseg_rt.errors import EngineError
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.frame import check_frame
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.pipeline.flight import Flight, FrameInFlight, Request
from errseg_rt.pipeline.outcome import DeviceSegmentation
from errseg_rt.pipeline.pipeline import DeviceCascade
from errseg_rt.pipeline.refinement import detail_mode
from errseg_rt.places.open import open_gpu


class DeviceRuntime:
    """Segments frames on a GPU; may be used from several threads at once.

    Args:
        bundle: The bundle.
        engine: One of `DEVICE_ENGINES`.
        device: `"cuda"` or `"cuda:N"`.
        precision: As `open_device_engine` has it.
        build: Likewise.
        compiled: Whether `torch.compile` fuses the graphs, with the torch engine.
        threshold: t of eq. 4.
        detail: `"sparse"`, `"dense"`, or None: sparse where that is exact.
        budget: Most work of refinement, as a share of the dense stage; None: no limit.
        max_pixels: Largest frame, height times width.

    Attributes:
        detail: `"sparse"` or `"dense"`.
        row_work: As `Runtime.row_work`.

    Raises:
        BundleError: The bundle is damaged, or cannot be refined sparsely.
        EngineError: There is no such GPU, or the engine cannot load the bundle there.
        ValueError: There is no such precision.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str,
        *,
        device: str,
        precision: str,
        build: str | None,
        compiled: bool,
        threshold: float,
        detail: str | None,
        budget: float | None,
        max_pixels: int,
    ) -> None:
        check_device_engine(engine)
        gpu = open_gpu(bundle, engine, device, precision, build)
        self.detail = detail_mode(bundle, "sparse" if budget is not None else detail)
        front, stage3 = (
            open_device_engine(engine, bundle, graph, gpu=gpu, precision=precision, build=build, compiled=compiled)
            for graph in ("front", "refine")
        )
        with gpu.entered():
            cascade = DeviceCascade(
                bundle, front, stage3, gpu=gpu, threshold=threshold, detail=self.detail, budget=budget
            )
        self._gpu, self._spec, self._max_pixels = gpu, bundle.manifest.input, max_pixels
        self.row_work = cascade.row_work
        self._flight = Flight(cascade, gpu)

    def submit(self, frame: Any, color: str, confidence: bool, semantic: bool) -> FrameInFlight:
        """As `Runtime.submit`."""
        return self._flight.submit(*self._checked(frame, color, confidence, semantic))

    def run_on_device(self, frame: Any, color: str, confidence: bool, semantic: bool) -> DeviceSegmentation:
        """As `Runtime.segment_on_device`."""
        if not self._gpu.has_tensors:
            raise EngineError("results stay on the GPU as torch's tensors, and there is no torch: use segment()")
        return self._flight.run_on_device(*self._checked(frame, color, confidence, semantic))

    def branches(self, frame: Any, color: str, scale: float) -> Branches:
        """As `Runtime.branches`."""
        frame, request = self._checked(frame, color, False, False)
        return self._flight.branches(frame, color=request.color, scale=scale)

    def warm_up(self, size: tuple[int, int]) -> None:
        """Compile and capture all that frames of a size `(H, W)` need."""
        self._flight.prepare(Request(*size, "bgr", False, False))

    def _checked(self, frame: Any, color: str, confidence: bool, semantic: bool) -> tuple[Any, Request]:
        """The frame as an array or tensor, and what it is asked for."""
        if color not in ("bgr", "rgb"):
            raise ValueError(f"color must be 'bgr' or 'rgb', got {color!r}")
        if not isinstance(frame, np.ndarray):
            frame = self._gpu.taken(frame)
        shape = tuple(frame.shape)
        check_frame(dtype_of(frame), shape, self._spec, self._max_pixels)
        return frame, Request(shape[0], shape[1], color, confidence, semantic)
