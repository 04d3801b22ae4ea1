"""Frames to labels, and how far to trust them: a bundle, opened in a place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.errors import EngineError, FrameError
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.frame import Ask, DeviceFrame, check_frame
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.options import Limits, Options
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.flight import Flight
from errseg_rt.pipeline.in_flight import FrameInFlight
from errseg_rt.pipeline.open import open_way
from errseg_rt.pipeline.outcome import Outcome
from errseg_rt.system.cores import usable_cores
from errseg_rt.system.shortage import FREE_MEMORY, is_out_of_memory

if TYPE_CHECKING:
    from errseg_rt.video.stream import Stream

_AT_ONCE = 4  # frames of a stream on a CPU at most, each of which takes its memory


class Runtime:
    """Segments frames with a bundle; may be used from several threads at once.

    Pickled, it is its bundle and options, and is opened again where it is loaded. A forked child opens it again at its
    first frame; what a GPU or torch has does not go through a fork.

    Args:
        bundle: Name of an embedded bundle, a bundle's folder, or an opened bundle.
        engine: What executes the graphs, as `Options.engine`.
        options: How it is run; None: by default.
        changes: Options by name, which take the place of those in `options`: `Runtime(device="cuda", budget=0.1)`.

    Attributes:
        bundle: The opened bundle.
        manifest: Its manifest.
        options: How it is run.
        device: Where.
        precision: In what.
        detail: `"sparse"` or `"dense"`; None where the bundle has no detail branch.
        limits: Of a frame that is given none of its own.
        layers: Those of refinement, with the multiply-adds of a pixel.
        providers: ONNX Runtime's execution providers that run the graphs; none with other engines.

    Raises:
        BundleError: The bundle is missing or damaged, or cannot be refined sparsely, as budgets and deadlines need.
        EngineError: The engine is not installed, or cannot load the bundle.
        TypeError: There is no option of that name.
        ValueError: An option is out of range, or two of them contradict each other.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle = "camvid",
        engine: str | None = None,
        *,
        options: Options | None = None,
        **changes: Any,
    ) -> None:
        if engine is not None:
            changes["engine"] = engine
        self.options = replace(options or Options(), **changes)
        self.bundle = Bundle.open(bundle)
        self.manifest = self.bundle.manifest
        self.limits = self.options.limits(self.manifest.threshold)
        self.device, self.precision = self.options.place, self.options.arithmetic
        if self.options.build == "auto":
            from errseg_rt.export.engines.builds import build_missing

            build_missing(self.bundle, self.options)
        self._open: Direct | Flight | None = open_way(self.bundle, self.options)
        self._process = os.getpid()
        self._beside: Runtime | None = None  # gives a frame fewer threads, for several at a time
        self.detail, self.layers = self._way.pipeline.detail, self._way.pipeline.layers
        self.providers = self._way.pipeline.providers

    @property
    def threshold(self) -> float:
        """T of a frame that is given none of its own."""
        return self.limits.threshold

    def segment(
        self,
        frame: npt.NDArray[np.uint8] | DeviceFrame,
        *,
        color: str = "bgr",
        confidence: bool = False,
        semantic: bool = False,
        instances: bool = True,
        threshold: float | None = None,
        budget: float | None = None,
        deadline_ms: float | None = None,
    ) -> Segmentation:
        """Label every pixel of a frame.

        Args:
            frame: `uint8 [H, W, 3]` of any size and orientation; on a GPU also a tensor that lies there.
            color: Channel order, `"bgr"` (as OpenCV reads) or `"rgb"`.
            confidence: Also give the fused probability of each label.
            semantic: Also give the labels of the semantic branch alone.
            instances: Also tell instances apart, where the bundle has them.
            threshold: t for this frame; None: as the runtime was opened.
            budget: Likewise.
            deadline_ms: Likewise.

        Returns:
            Labels, error map, flagged pixels and timings.

        Raises:
            FrameError: The frame is of a wrong type, rank or size.
            EngineError: A graph failed or gave values that are not finite, memory was short, or the runtime is closed.
            ValueError: Another argument is out of range.
        """
        with _named_shortage(frame):
            return self.submit(
                frame,
                color=color,
                confidence=confidence,
                semantic=semantic,
                instances=instances,
                threshold=threshold,
                budget=budget,
                deadline_ms=deadline_ms,
            ).result()

    def submit(
        self,
        frame: npt.NDArray[np.uint8] | DeviceFrame,
        *,
        color: str = "bgr",
        confidence: bool = False,
        semantic: bool = False,
        instances: bool = True,
        threshold: float | None = None,
        budget: float | None = None,
        deadline_ms: float | None = None,
    ) -> FrameInFlight:
        """Begin a frame, and go on with the next: on a GPU up to three are in flight, on the CPU each is done at once.

        Arguments and what is raised as those of `segment`. What `result()` of the frame in flight gives is what
        `segment` returns.
        """
        way, ask = self._way, Ask(color, confidence, semantic, instances).checked()
        with _named_shortage(frame):
            return way.submit(self._checked(way, frame), ask, self._limits(threshold, budget, deadline_ms))

    def segment_on_device(
        self,
        frame: npt.NDArray[np.uint8] | DeviceFrame,
        *,
        color: str = "bgr",
        confidence: bool = False,
        semantic: bool = False,
        instances: bool = True,
        threshold: float | None = None,
        budget: float | None = None,
        deadline_ms: float | None = None,
    ) -> Outcome:
        """Label every pixel of a frame and leave the results on the GPU, as work of torch's current stream.

        Nothing waits for the GPU: values that are not finite show in the outcome's `faults` alone. Arguments and what
        is raised as those of `segment`; EngineError where the runtime is on the CPU.
        """
        way, ask = self._way, Ask(color, confidence, semantic, instances).checked()
        return way.on_device(self._checked(way, frame), ask, self._limits(threshold, budget, deadline_ms))

    def stream(
        self,
        source: Any,
        *,
        policy: str | None = None,
        stride: int = 1,
        max_fps: float | None = None,
        workers: int | None = None,
        transport: str = "tcp",
        give_up: float | None = None,
        **asked: Any,
    ) -> Stream:
        """Segment the frames of a video, a camera or any iterable, one after the other.

            with runtime.stream("rtsp://camera/street") as stream:
                for shot in stream:
                    shot.result.labels, shot.timestamp, shot.dropped

        Decoding, segmenting and what the loop does overlap. Leaving the loop ends it; a live source that breaks or
        hangs is opened again.

        Args:
            source: A video file; a folder or glob of images; the number of a camera at this machine; a URL (RTSP, HTTP,
                UDP) or `.sdp` file; `"scene:SEED"`, a rendered street; an iterable of frames, alone or in pairs with
                their time in seconds; or a source of `errseg_rt.video`.
            policy: `"latest"`, `"all"`, or None: as `errseg_rt.video.stream.Stream` says.
            stride: Every how many frames one is taken.
            max_fps: Frames a second of the source's time that are taken at most.
            workers: Frames that are segmented side by side; None: where no frame is dropped and none has a deadline, up
                to four on the CPU, which share its cores, unless the runtime's threads were chosen; else as
                `errseg_rt.video.stream.Stream` says.
            transport: For RTSP, `"tcp"` or `"udp"`.
            give_up: Seconds without a frame after which a live source is given up; None: never.
            asked: Other arguments of `segment`; `Stream.change` changes them while it runs.

        Raises:
            SourceError: There is no such source, or it cannot be opened.
            ValueError: An argument is out of range.
        """
        from errseg_rt.video.live import Patience
        from errseg_rt.video.open import open_source
        from errseg_rt.video.stream import Stream, default_policy

        opened = open_source(
            source, transport=transport, patience=Patience(give_up=give_up), max_pixels=self.options.max_pixels
        )
        policy = policy or default_policy(opened)
        hurries = asked.get("deadline_ms", self.limits.deadline_ms) is not None
        runtime = self if workers or policy == "latest" or hurries else self._sharing_cores()
        return Stream(runtime, opened, policy=policy, stride=stride, max_fps=max_fps, workers=workers, **asked)

    def branches(
        self, frame: npt.NDArray[np.uint8] | DeviceFrame, *, color: str = "bgr", scale: float = 1.0
    ) -> Branches:
        """Run all branches densely, and decide nothing: what evaluation and calibration look at.

        Args:
            frame: As `segment` takes it.
            color: As `segment` takes it.
            scale: Factor on the size at which the bundle takes the frame, for multi-scale inference.

        Returns:
            Logits of the branches, and how the frame lies on their grid.

        Raises:
            FrameError: The frame is of a wrong type, rank or size.
            EngineError: A graph failed or gave values that are not finite, or the runtime is closed.
            ValueError: `color` is neither, or `scale` is no scale.
        """
        way = self._way
        with _named_shortage(frame):
            return way.branches(self._checked(way, frame), color=Ask(color).checked().color, scale=scale)

    def warm_up(self, size: tuple[int, int] = (64, 64)) -> None:
        """Compile the kernels, for which the first frame would wait: once on a machine, where that can be kept.

        On a GPU the work of each size is captured, too; without this, the first three frames of a size do that, and all
        that the GPU does waits for it.

        Args:
            size: Height and width of the frames to come, for which a GPU captures its work; the CPU needs no size.
        """
        self._way.prepare(size)

    def close(self) -> None:
        """Let go of the engines; frames that are under way are finished."""
        self._open = None
        if self._beside is not None:
            self._beside.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as what opens it: bundle and options; whoever loads it opens the bundle again."""
        if self._open is None:
            raise EngineError("this runtime is closed; make a new one")
        bundle = self.bundle if self.bundle.engine_folder else self.bundle.address
        return partial(type(self), options=self.options), (bundle,)

    @property
    def _way(self) -> Direct | Flight:
        way = self._open  # held by the caller, so that close() lets its frame finish
        if way is None:
            raise EngineError("this runtime is closed; make a new one")
        if self._process != os.getpid():  # forked: the threads that its engines wait for are its parent's
            if self.options.kind == "gpu" or self.options.engine == "torch":
                raise EngineError(
                    "this runtime was opened in another process, and the threads and GPUs of "
                    f"{self.options.engine} do not go through a fork; start processes by spawn"
                )
            self._open = way = open_way(self.bundle, self.options)
            self._process = os.getpid()
        return way

    def _sharing_cores(self) -> Runtime:
        """This runtime, or one of the same bundle that gives a frame fewer threads.

        Frames side by side, on a thread each, take less of the processor than one after the other on all of them.
        """
        threads = -(-usable_cores() // _AT_ONCE)
        chosen = self.options.threads is not None or self.options.providers is not None
        if chosen or self.options.engine != "onnxruntime" or threads == self.options.cores:
            return self
        if self._beside is None:
            self._beside = type(self)(self.bundle, options=replace(self.options, threads=threads))
        return self._beside

    def _checked(self, way: Direct | Flight, frame: Any) -> Any:
        """The frame as an array, which must be one that can be segmented."""
        if frame is None:
            raise FrameError("the frame is None, which cv2.imread gives for a file that it cannot read; check its path")
        if not isinstance(frame, np.ndarray):
            frame = way.pipeline.place.taken(frame)
        elif isinstance(frame, np.ma.MaskedArray):
            raise FrameError(
                "a frame has no mask, and this one's would be passed over; give frame.data or frame.filled()"
            )
        check_frame(dtype_of(frame), tuple(frame.shape), way.pipeline.spec, self.options.max_pixels)
        return frame

    def _limits(self, threshold: float | None, budget: float | None, deadline_ms: float | None) -> Limits:
        limits = self.limits.changed(threshold, budget, deadline_ms)
        if limits.is_bounded and self.detail != "sparse":
            refines = "refines densely" if self.detail else "has no detail branch to refine with"
            raise ValueError(f"budget and deadline_ms need sparse refinement, and this runtime {refines}")
        return limits


@contextmanager
def _named_shortage(frame: Any) -> Iterator[None]:
    """Have whatever says that memory was short be an error of this frame, on which the next may follow."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error) or str(error).endswith(FREE_MEMORY):
            raise
        size = "x".join(map(str, np.shape(frame)[:2]))
        raise EngineError(f"out of memory for a frame of {size} ({error}); {FREE_MEMORY}") from error
