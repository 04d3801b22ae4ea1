"""The way of a frame: preprocess, front graph, selection, refinement, fusion."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.engines import Array, Engine, open_engine
from errseg_rt.errors import BundleError, EngineError, FrameError
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.frame import DeviceFrame, FrameInFlight, check_frame
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.kernels.fuse_labels import fuse_labels, upsample
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.pipeline.pace import Pace
from errseg_rt.pipeline.refinement import Refinement, finite

if TYPE_CHECKING:
    from errseg_rt.pipeline.device_runtime import DeviceRuntime
    from errseg_rt.pipeline.outcome import DeviceSegmentation


class Runtime:
    """Segments frames with a bundle; may be used from several threads at once.

    Args:
        bundle: Name of an embedded bundle, a bundle's folder, or an opened bundle.
        engine: What executes the graphs: `"onnxruntime"`, `"tensorrt"` or `"torch"`.
        device: `"cpu"`, or the GPU on which the whole frame is to run, `"cuda"` or `"cuda:N"`, with an engine that runs
            there; None: the GPU with TensorRT, else the CPU.
        precision: `"fp32"`, `"fp16"`, `"bf16"` or `"int8"`; None: fp16 on a GPU, else fp32. What torch does not compute
            in is built ahead, by `errseg-rt build-engine`.
        build: `"auto"` builds an engine that is missing or stale; None: that is an error.
        compiled: Whether `torch.compile` fuses the graphs, on a GPU with the torch engine.
        threshold: t of eq. 4, between 0 and 1; None: the bundle's. A pixel whose raw P_ep exceeds it is labelled again.
        detail: `"sparse"` computes stage 3 of the detail branch for the flagged pixels only, `"dense"` everywhere, with
            the same labels; None: sparse where the bundle's norms are frozen, as those of embedded ones are.
        budget: Most work of refinement on a frame, as a share of the dense stage, 0..1; where that does not suffice,
            the most doubtful pixels go first. None: no limit.
        deadline_ms: Milliseconds within which a frame shall be done, as its `timings` count them: turned into a budget
            by what recent frames have cost, so that frames meet it as a rule. None: no deadline. Not on a GPU, where
            the host knows what a frame costs only when it is done: give a budget there.
        threads: CPU threads of one frame; None: all cores. Torch keeps its own setting, `torch.set_num_threads`.
        providers: ONNX Runtime's execution providers; None: the CPU.
        max_pixels: Largest frame, height times width; larger ones are refused.

    Attributes:
        bundle: The opened bundle.
        manifest: Its manifest.
        engine: What executes the graphs.
        device: Where.
        precision: In what.
        detail: `"sparse"` or `"dense"`.
        threshold: t.

    Raises:
        BundleError: The bundle is missing or damaged, or cannot be refined sparsely, as budgets and deadlines need.
        EngineError: The engine is not installed, or cannot load the bundle.
        ValueError: An argument is out of range, or two of them contradict each other.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle = "camvid",
        engine: str = "onnxruntime",
        *,
        device: str | None = None,
        precision: str | None = None,
        build: str | None = None,
        compiled: bool = False,
        threshold: float | None = None,
        detail: str | None = None,
        budget: float | None = None,
        deadline_ms: float | None = None,
        threads: int | None = None,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        if device is None:
            device = "cuda" if engine == "tensorrt" else "cpu"
        _check_limits(detail, budget, deadline_ms)
        _check_device(device, compiled, deadline_ms, threads, providers)
        self.bundle = Bundle.open(bundle)
        self.manifest = self.bundle.manifest
        self.threshold = self.manifest.threshold if threshold is None else threshold
        self.budget, self.deadline_ms, self.max_pixels = budget, deadline_ms, max_pixels
        self._pace = None if deadline_ms is None else Pace(deadline_ms)
        self.engine, self.device = engine, device
        self.precision = precision or ("fp32" if device == "cpu" else "fp16")
        self._threads = threads or os.cpu_count() or 1
        self._gpu: DeviceRuntime | None = None
        if device != "cpu":
            from errseg_rt.pipeline.device_runtime import DeviceRuntime

            self._gpu = DeviceRuntime(
                self.bundle,
                engine,
                device=device,
                precision=self.precision,
                build=build,
                compiled=compiled,
                threshold=self.threshold,
                detail=detail,
                budget=budget,
                max_pixels=max_pixels,
            )
            self.detail = self._gpu.detail
            return
        options: dict[str, Any] = {
            "precision": precision, "build": build, "threads": threads, "providers": providers
        }  # fmt: skip
        self._front = open_engine(engine, self.bundle, "front", **options)
        stage3 = open_engine(engine, self.bundle, "refine", **options)
        self._check_graphs(stage3)
        if (budget, deadline_ms) != (None, None):
            detail = "sparse"
        self._refinement = Refinement(self.bundle, stage3, detail, threads=self._threads)
        self.detail = self._refinement.detail

    def segment(
        self,
        frame: npt.NDArray[np.uint8] | DeviceFrame,
        *,
        color: str = "bgr",
        confidence: bool = False,
        semantic: bool = False,
    ) -> Segmentation:
        """Label every pixel of a frame.

        Args:
            frame: `uint8 [H, W, 3]` of any size and orientation; on a GPU also a tensor that lies there.
            color: Channel order, `"bgr"` (as OpenCV reads) or `"rgb"`.
            confidence: Also give the fused probability of each label.
            semantic: Also give the labels of the semantic branch alone; the time that takes is not counted.

        Returns:
            Labels, error map, flagged pixels and timings.

        Raises:
            FrameError: The frame is of a wrong type, rank or size.
            EngineError: A graph failed or gave non-finite values, or the runtime is closed.
            ValueError: `color` is neither.
        """
        if self._gpu is not None:
            return self._gpu.submit(frame, color, confidence, semantic).result()
        front_engine, refinement = self._engines()  # held, so that close() lets this frame finish
        frame = self._checked(frame)
        clock = _Stopwatch()

        image, content = self._preprocess(frame, color)
        clock.lap("preprocess")

        front = _finite(front_engine.run({"image": image}))
        logits, error_logit = front["logits"][0], front["error_logit"][0, 0]
        clock.lap("front")

        geometry = self._geometry(frame, content, image, error_logit)
        error_probability = self.manifest.calibration(error_logit)
        budget = self._budget(refinement.dense_work(geometry.grid_size), clock)
        selection = refinement.select(error_logit, self.threshold, geometry, budget)
        clock.lap("select")

        refined = refinement.refine(front, selection, budget)
        clock.lap("refine")

        fused = fuse_labels(
            logits, refined.detail, refined.where, geometry, confidence=confidence, threads=self._threads
        )
        clock.lap("fuse")

        if self._pace is not None:
            self._pace.saw(refined.work, clock.laps["refine"], clock.laps["select"] + clock.laps["fuse"])
        semantic_labels = None
        if semantic:
            semantic_labels = fuse_labels(logits, None, None, geometry, threads=self._threads).labels
        return Segmentation(
            labels=fused.labels,
            error_probability=error_probability,
            flagged=selection.flagged,
            left_out=selection.left_out,
            work=refined.work / refinement.dense_work(geometry.grid_size),
            classes=self.manifest.classes,
            geometry=geometry,
            timings=clock.laps,
            confidence=fused.confidence,
            semantic_labels=semantic_labels,
        )

    def submit(
        self,
        frame: npt.NDArray[np.uint8] | DeviceFrame,
        *,
        color: str = "bgr",
        confidence: bool = False,
        semantic: bool = False,
    ) -> FrameInFlight:
        """Begin a frame, and go on with the next: on a GPU up to three are in flight, on the CPU each is done at once.

        Arguments and what is raised as those of `segment`. What `result()` of the frame in flight gives is what
        `segment` returns.
        """
        if self._gpu is not None:
            return self._gpu.submit(frame, color, confidence, semantic)
        return _Done(self.segment(frame, color=color, confidence=confidence, semantic=semantic))

    def segment_on_device(
        self,
        frame: npt.NDArray[np.uint8] | DeviceFrame,
        *,
        color: str = "bgr",
        confidence: bool = False,
        semantic: bool = False,
    ) -> DeviceSegmentation:
        """Label every pixel of a frame and leave the results on the GPU, as work of torch's current stream.

        Nothing waits for the GPU: values that are not finite show in the result's `is_finite` alone. Arguments and what
        is raised as those of `segment`; EngineError where the runtime is on the CPU.
        """
        if self._gpu is None:
            raise EngineError("this runtime works on the CPU; open it with device='cuda', or use segment()")
        return self._gpu.run_on_device(frame, color, confidence, semantic)

    def branches(
        self, frame: npt.NDArray[np.uint8] | DeviceFrame, *, color: str = "bgr", scale: float = 1.0
    ) -> Branches:
        """Run all three branches densely, and decide nothing: what evaluation and calibration look at.

        Args:
            frame: As `segment` takes it.
            color: As `segment` takes it.
            scale: Factor on the size at which the bundle takes the frame, for multi-scale inference.

        Returns:
            Logits of the branches, and how the frame lies on their grid.

        Raises:
            FrameError: The frame is of a wrong type, rank or size.
            EngineError: A graph failed or gave non-finite values, or the runtime is closed.
            ValueError: `color` is neither, or `scale` is no scale.
        """
        if self._gpu is not None:
            return self._gpu.branches(frame, color, scale)
        front_engine, refinement = self._engines()
        frame = self._checked(frame)
        image, content = self._preprocess(frame, color, scale)
        front = _finite(front_engine.run({"image": image}))
        error_logit = front["error_logit"][0, 0]
        geometry = self._geometry(frame, content, image, error_logit)
        return Branches(front["logits"][0], error_logit, refinement.everywhere(front), geometry)

    @property
    def row_work(self) -> tuple[int, int, int]:
        """Multiply-adds of refinement at a pixel of F1, F2 and F3; in equal parts where it is dense anyway."""
        return self._engines()[1].row_work if self._gpu is None else self._gpu.row_work

    def warm_up(self, size: tuple[int, int] = (64, 64)) -> None:
        """Compile the kernels, for which the first frame would wait: once on a machine, where that can be kept.

        Args:
            size: Height and width of the frames to come, for which a GPU captures its work; the CPU needs no size.
        """
        if self._gpu is not None:
            return self._gpu.warm_up(size)
        refinement = self._engines()[1]
        self._preprocess(np.zeros((8, 8, 3), np.uint8), "bgr")
        geometry = Geometry((2, 2), (8, 8), (8, 8), (8, 8), self.manifest.align_corners)
        logits = np.zeros((len(self.manifest.classes), 2, 2), np.float32)
        fuse_labels(logits, logits, np.ones((2, 2), np.bool_), geometry, confidence=True)
        upsample(logits[0], geometry)
        self.manifest.calibration(logits[0])
        return refinement.warm_up()

    def close(self) -> None:
        """Let go of the engines; frames that other threads have under way are finished."""
        self._gpu = None
        self.__dict__.pop("_front", None)
        self.__dict__.pop("_refinement", None)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _engines(self) -> tuple[Engine, Refinement]:
        try:
            return self._front, self._refinement
        except AttributeError:
            raise EngineError("this runtime is closed; make a new one") from None

    def _budget(self, dense_work: int, clock: _Stopwatch) -> int | None:
        """Most multiply-adds of refinement on this frame; None: no limit."""
        if self._pace is not None:
            return self._pace.budget(sum(clock.laps.values()), dense_work)
        return None if self.budget is None else int(self.budget * dense_work)

    def _preprocess(
        self, frame: npt.NDArray[np.uint8], color: str, scale: float = 1.0
    ) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
        """The network's input, and the size of the part of it that shows the frame."""
        spec = self.manifest.input
        content, padded = spec.sizes((frame.shape[0], frame.shape[1]), scale)
        image = preprocess(frame, content, padded, mean=spec.mean, std=spec.std, color=color, threads=self._threads)
        return image, content

    def _geometry(
        self, frame: npt.NDArray[Any], content: tuple[int, int], image: npt.NDArray[Any], grid: npt.NDArray[Any]
    ) -> Geometry:
        return Geometry(grid.shape, image.shape[2:], content, frame.shape[:2], self.manifest.align_corners)

    def _check_graphs(self, stage3: Engine) -> None:
        """Raise BundleError where the graphs do not fit each other or the manifest."""
        outputs, classes = self._front.outputs, len(self.manifest.classes)
        missing = {"logits", "error_logit", *stage3.inputs} - set(outputs)
        if missing or "detail_logits" not in stage3.outputs:
            raise BundleError(f"{self.bundle.folder}: its graphs do not fit together; export it again")
        if outputs["logits"].shape[1] != classes:
            raise BundleError(
                f"{self.bundle.folder}: the front graph has {outputs['logits'].shape[1]} classes, the manifest has "
                f"{classes}; export it again"
            )

    def _checked(self, frame: object) -> npt.NDArray[np.uint8]:
        """The frame, which must be one."""
        if not isinstance(frame, np.ndarray):
            raise FrameError(f"a frame is a NumPy array uint8 [H, W, 3], got {type(frame).__name__}")
        check_frame(str(frame.dtype), frame.shape, self.manifest.input, self.max_pixels)
        return frame


@dataclass(frozen=True, eq=False)
class _Done:
    """A frame that was done at once."""

    segmentation: Segmentation

    def done(self) -> bool:
        return True

    def result(self) -> Segmentation:
        return self.segmentation


class _Stopwatch:
    """Milliseconds from lap to lap."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = 1000 * (now - self._last)
        self._last = now


def _check_limits(detail: str | None, budget: float | None, deadline_ms: float | None) -> None:
    """Raise ValueError for limits of refinement that are none, or that contradict each other."""
    if detail not in (None, "sparse", "dense"):
        raise ValueError(f"detail must be 'sparse' or 'dense', got {detail!r}")
    if budget is not None and not 0 <= budget <= 1:
        raise ValueError(f"budget must be a share in 0..1, got {budget}")
    if deadline_ms is not None and not 0 < deadline_ms < math.inf:
        raise ValueError(f"deadline_ms must be a positive number, got {deadline_ms}")
    if budget is not None and deadline_ms is not None:
        raise ValueError(f"a deadline sets the budget itself: give one of them, got {budget = } and {deadline_ms = }")
    if detail == "dense" and (budget, deadline_ms) != (None, None):
        raise ValueError(
            f"a budget or deadline needs sparse refinement, got {budget = }, {deadline_ms = }, {detail = }"
        )


def _check_device(device: str, compiled: bool, deadline_ms: float | None, threads: int | None, providers: Any) -> None:
    """Raise ValueError for what the CPU or a GPU does not know."""
    on_the_cpu = {"deadline_ms": deadline_ms, "threads": threads, "providers": providers}
    wrong, other = ({"compiled": compiled or None}, "a GPU") if device == "cpu" else (on_the_cpu, "the CPU")
    for name, value in wrong.items():
        if value is not None:
            hint = "; give a budget: a GPU is not waited for to time its frames" if name == "deadline_ms" else ""
            raise ValueError(f"{name} is for {other}, got {device = } and {name} = {value!r}{hint}")


def _finite(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """The front graph's outputs; EngineError when a value among them is NaN or infinite."""
    for name, array in outputs.items():
        finite("the front graph", name, array)
    return outputs
