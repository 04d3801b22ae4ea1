"""The way of a frame: preprocess, front graph, selection, refinement, fusion."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.branches import Branches
from errseg_rt.bundle import Bundle
from errseg_rt.engines import Array, Engine, open_engine
from errseg_rt.errors import BundleError, EngineError, FrameError
from errseg_rt.input_spec import MAX_PIXELS
from errseg_rt.kernels.fuse_labels import Geometry, fuse_labels, upsample
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.pace import Pace
from errseg_rt.refinement import Refinement, finite
from errseg_rt.segmentation import Segmentation

_MOST_PADDING = 4  # times as many pixels as a frame may have, scaled: only the padding of a sliver makes more


class Runtime:
    """Segments frames with a bundle; may be used from several threads at once.

    Args:
        bundle: Name of an embedded bundle, or a bundle's folder.
        engine: What executes the graphs: `"onnxruntime"` or `"torch"`.
        threshold: t of eq. 4, between 0 and 1; None: the bundle's. A pixel whose raw P_ep exceeds it is labelled again.
        detail: `"sparse"` computes stage 3 of the detail branch for the flagged pixels only, `"dense"` everywhere, with
            the same labels; None: sparse where the bundle's norms are frozen, as those of embedded ones are.
        budget: Most work of refinement on a frame, as a share of the dense stage, 0..1; where that does not suffice,
            the most doubtful pixels go first. None: no limit.
        deadline_ms: Milliseconds within which a frame shall be done, as its `timings` count them: turned into a budget
            by what recent frames have cost, so that frames meet it as a rule. None: no deadline.
        threads: CPU threads of one frame; None: all cores. Torch keeps its own setting, `torch.set_num_threads`.
        providers: ONNX Runtime's execution providers; None: the CPU.
        max_pixels: Largest frame, height times width; larger ones are refused.

    Raises:
        BundleError: The bundle is missing or damaged, or cannot be refined sparsely, as budgets and deadlines need.
        EngineError: The engine is not installed, or cannot load the bundle.
        ValueError: An argument is out of range, or two of them contradict each other.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] = "camvid",
        engine: str = "onnxruntime",
        *,
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
        _check_limits(detail, budget, deadline_ms)
        self.bundle = Bundle.open(bundle)
        self.manifest = self.bundle.manifest
        self.threshold = self.manifest.threshold if threshold is None else threshold
        self.budget, self.deadline_ms, self.max_pixels = budget, deadline_ms, max_pixels
        self._pace = None if deadline_ms is None else Pace(deadline_ms)
        self._threads = threads or os.cpu_count() or 1
        self._front = open_engine(engine, self.bundle, "front", threads=threads, providers=providers)
        stage3 = open_engine(engine, self.bundle, "refine", threads=threads, providers=providers)
        self._check_graphs(stage3)
        if (budget, deadline_ms) != (None, None):
            detail = "sparse"
        self._refinement = Refinement(self.bundle, stage3, detail, threads=self._threads)
        self.detail = self._refinement.detail

    def segment(
        self,
        frame: npt.NDArray[np.uint8],
        *,
        color: str = "bgr",
        confidence: bool = False,
        semantic: bool = False,
    ) -> Segmentation:
        """Label every pixel of a frame.

        Args:
            frame: `uint8 [H, W, 3]` of any size and orientation.
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
        front_engine, refinement = self._engines()  # held, so that close() lets this frame finish
        self._check(frame)
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

    def branches(self, frame: npt.NDArray[np.uint8], *, color: str = "bgr", scale: float = 1.0) -> Branches:
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
        front_engine, refinement = self._engines()
        self._check(frame)
        image, content = self._preprocess(frame, color, scale)
        front = _finite(front_engine.run({"image": image}))
        error_logit = front["error_logit"][0, 0]
        geometry = self._geometry(frame, content, image, error_logit)
        return Branches(front["logits"][0], error_logit, refinement.everywhere(front), geometry)

    @property
    def row_work(self) -> tuple[int, int, int]:
        """Multiply-adds of refinement at a pixel of F1, F2 and F3; in equal parts where it is dense anyway."""
        return self._engines()[1].row_work

    def warm_up(self) -> None:
        """Compile the kernels, for which the first frame would wait: once on a machine, where that can be kept."""
        refinement = self._engines()[1]
        self._preprocess(np.zeros((8, 8, 3), np.uint8), "bgr")
        geometry = Geometry((2, 2), (8, 8), (8, 8), (8, 8), self.manifest.align_corners)
        logits = np.zeros((len(self.manifest.classes), 2, 2), np.float32)
        fuse_labels(logits, logits, np.ones((2, 2), np.bool_), geometry, confidence=True)
        upsample(logits[0], geometry)
        refinement.warm_up()

    def close(self) -> None:
        """Let go of the engines; frames that other threads have under way are finished."""
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
        content = spec.content_size((frame.shape[0], frame.shape[1]))
        # From here on the scale is that of the caller: the bundle's own has been applied.
        spec = replace(spec, scale=scale, enlarge_up_to=0)
        content, padded = spec.content_size(content), spec.input_size(content)
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

    def _check(self, frame: object) -> None:
        if not isinstance(frame, np.ndarray):
            raise FrameError(f"a frame is a NumPy array uint8 [H, W, 3], got {type(frame).__name__}")
        if frame.dtype != np.uint8:
            raise FrameError(f"a frame is uint8, got {frame.dtype}; scale it to 0..255 and convert it")
        if frame.ndim != 3 or frame.shape[2] != 3:
            raise FrameError(f"a frame is [H, W, 3], got {list(frame.shape)}; convert grey or alpha with cv2.cvtColor")
        if frame.size == 0:
            raise FrameError(f"the frame has no pixels: {list(frame.shape)}")
        if frame.shape[0] * frame.shape[1] > self.max_pixels:
            raise FrameError(
                f"the frame has {frame.shape[0]}x{frame.shape[1]} pixels, over the limit of {self.max_pixels}; "
                "shrink it, or raise max_pixels"
            )
        spec = self.manifest.input
        padded = spec.input_size((frame.shape[0], frame.shape[1]))
        if padded[0] * padded[1] > _MOST_PADDING * max(1.0, spec.scale) ** 2 * self.max_pixels:
            raise FrameError(
                f"the frame of {frame.shape[0]}x{frame.shape[1]} pixels is so narrow that the network's input would be "
                f"{padded[0]}x{padded[1]}; cut it into parts"
            )


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


def _finite(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """The front graph's outputs; EngineError when a value among them is NaN or infinite."""
    for name, array in outputs.items():
        finite("the front graph", name, array)
    return outputs
