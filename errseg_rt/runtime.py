"""The way of a frame: preprocess, front graph, selection, refinement, fusion."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle import Bundle
from errseg_rt.engines import Array, Engine, open_engine
from errseg_rt.errors import BundleError, EngineError, FrameError
from errseg_rt.input_spec import MAX_PIXELS
from errseg_rt.kernels.fuse_labels import Geometry, fuse_labels, upsample
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.segmentation import Segmentation
from errseg_rt.selection import select

_MOST_PADDING = 4  # times as many pixels as a frame may have, scaled: only the padding of a sliver makes more


class Runtime:
    """Segments frames with a bundle; may be used from several threads at once.

    Args:
        bundle: Name of an embedded bundle, or a bundle's folder.
        engine: What executes the graphs: `"onnxruntime"` or `"torch"`.
        threshold: t of eq. 4, between 0 and 1; None: the bundle's. A pixel whose raw P_ep exceeds it is labelled again.
        threads: CPU threads of one frame; None: all cores. Torch keeps its own setting, `torch.set_num_threads`.
        providers: ONNX Runtime's execution providers; None: the CPU.
        max_pixels: Largest frame, height times width; larger ones are refused.

    Raises:
        BundleError: The bundle is missing or damaged.
        EngineError: The engine is not installed, or cannot load the bundle.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] = "camvid",
        engine: str = "onnxruntime",
        *,
        threshold: float | None = None,
        threads: int | None = None,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.bundle = Bundle.open(bundle)
        self.manifest = self.bundle.manifest
        self.threshold = self.manifest.threshold if threshold is None else threshold
        self.max_pixels = max_pixels
        self._threads = threads or os.cpu_count() or 1
        self._front = open_engine(engine, self.bundle, "front", threads=threads, providers=providers)
        self._refine = open_engine(engine, self.bundle, "refine", threads=threads, providers=providers)
        self._check_graphs()

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
            semantic: Also give the labels of the semantic branch alone.

        Returns:
            Labels, error map, flagged pixels and timings.

        Raises:
            FrameError: The frame is of a wrong type, rank or size.
            EngineError: A graph failed or gave non-finite values, or the runtime is closed.
            ValueError: `color` is neither.
        """
        front_engine, refine_engine = self._engines()  # held, so that close() lets this frame finish
        self._check(frame)
        spec, clock = self.manifest.input, _Stopwatch()
        content, padded = spec.content_size(frame.shape[:2]), spec.input_size(frame.shape[:2])

        image = preprocess(frame, content, padded, mean=spec.mean, std=spec.std, color=color)
        clock.lap("preprocess")

        front = _finite("front", front_engine.run({"image": image}))
        logits, error_logit = front["logits"], front["error_logit"][0, 0]
        clock.lap("front")

        geometry = Geometry(error_logit.shape, padded, content, frame.shape[:2], self.manifest.align_corners)
        flagged = select(error_logit, self.threshold, geometry)
        clock.lap("select")

        detail = None
        if flagged.any():
            feeds = {name: front[name] for name in refine_engine.inputs}
            detail = _finite("refine", refine_engine.run(feeds))["detail_logits"][0]
        clock.lap("refine")

        mask = None if detail is None else flagged
        fused = fuse_labels(logits[0], detail, mask, geometry, confidence=confidence, threads=self._threads)
        clock.lap("fuse")

        semantic_labels = None
        if semantic:
            semantic_labels = fuse_labels(logits[0], None, None, geometry, threads=self._threads).labels
        return Segmentation(
            labels=fused.labels,
            error_probability=self.manifest.calibration(error_logit),
            flagged=flagged,
            classes=self.manifest.classes,
            geometry=geometry,
            timings=clock.laps,
            confidence=fused.confidence,
            semantic_labels=semantic_labels,
        )

    def warm_up(self) -> None:
        """Compile the kernels, for which the first frame would wait: once on a machine, where that can be kept."""
        geometry = Geometry((2, 2), (8, 8), (8, 8), (8, 8), self.manifest.align_corners)
        logits = np.zeros((len(self.manifest.classes), 2, 2), np.float32)
        fuse_labels(logits, logits, np.ones((2, 2), np.bool_), geometry)
        upsample(logits[0], geometry)

    def close(self) -> None:
        """Let go of the engines; frames that other threads have under way are finished."""
        self.__dict__.pop("_front", None)
        self.__dict__.pop("_refine", None)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _engines(self) -> tuple[Engine, Engine]:
        try:
            return self._front, self._refine
        except AttributeError:
            raise EngineError("this runtime is closed; make a new one") from None

    def _check_graphs(self) -> None:
        """Raise BundleError where the graphs do not fit each other or the manifest."""
        outputs, classes = self._front.outputs, len(self.manifest.classes)
        missing = {"logits", "error_logit", *self._refine.inputs} - set(outputs)
        if missing or "detail_logits" not in self._refine.outputs:
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


def _finite(graph: str, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """The outputs; EngineError when a logit among them is NaN or infinite."""
    for name, array in outputs.items():
        if name.endswith(("logits", "logit")) and not np.isfinite(array).all():
            raise EngineError(
                f"the {graph} graph gave non-finite {name}; the bundle's weights are damaged: export it again"
            )
    return outputs
