"""The way of a frame on a GPU, as a sequence of launches that never waits for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines import DeviceEngine
from errseg_rt.errors import BundleError
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.calibrate.launches import enqueue_calibrate
from errseg_rt.kernels.finite.launches import enqueue_faults
from errseg_rt.kernels.fuse_labels.launches import enqueue_fuse_labels
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.kernels.preprocess.launches import enqueue_preprocess
from errseg_rt.kernels.refine import DeviceWeights
from errseg_rt.kernels.refine.launches import enqueue_refine
from errseg_rt.kernels.select.checks import level
from errseg_rt.kernels.select.launches import enqueue_select
from errseg_rt.pipeline.outcome import BRANCHES, DeviceSegmentation, check_finite
from errseg_rt.pipeline.refinement import stage3_weights
from errseg_rt.places.place import Gpu


class DeviceCascade:
    """Preprocess, front graph, selection, refinement and fusion on one stream, ready for a CUDA graph.

    What a frame needs is decided on the device: selection leaves counts there, and programs of the kernels that lie
    past them end at once. A frame costs the same launches whatever it shows.

    Args:
        bundle: The bundle.
        front: Executes its front graph.
        stage3: Executes its refine graph, where all pixels are refined.
        gpu: Where it all lies.
        threshold: t of eq. 4.
        detail: `"sparse"` or `"dense"`, as `detail_mode` gives it.
        budget: Most work of refinement, as a share of the dense stage; None: no limit.

    Raises:
        BundleError: Its weights are damaged, or its graphs do not fit its manifest.
    """

    def __init__(
        self,
        bundle: Bundle,
        front: DeviceEngine,
        stage3: DeviceEngine,
        *,
        gpu: Gpu,
        threshold: float,
        detail: str,
        budget: float | None = None,
    ) -> None:
        self.manifest, self.threshold, self.budget = bundle.manifest, threshold, budget
        self._gpu, self._level = gpu, level(threshold)
        self._front, self._stage3 = front, stage3
        logits, classes = front.outputs["logits"], len(bundle.manifest.classes)
        if logits.shape[1] != classes:
            raise BundleError(
                f"{bundle.folder}: the front graph has {logits.shape[1]} classes, the manifest has {classes}; export "
                "it again"
            )
        self._weights = None
        if detail == "sparse":
            self._weights = DeviceWeights.brought(stage3_weights(bundle), gpu.bring, logits.dtype)
        knots = (bundle.manifest.calibration.logits, bundle.manifest.calibration.probabilities)
        self._knots = gpu.bring(np.array(knots, np.float32), "float32")

    @property
    def row_work(self) -> tuple[int, int, int]:
        """Multiply-adds of refinement at a pixel of F1, F2 and F3; in equal parts where it is dense anyway."""
        return (1, 1, 1) if self._weights is None else self._weights.host.row_work

    def run(
        self, frame: Any, *, color: str = "bgr", confidence: bool = False, semantic: bool = False
    ) -> DeviceSegmentation:
        """Enqueue a frame in the current stream.

        Args:
            frame: `uint8 [H, W, 3]` on the GPU; a tensor may have any strides.
            color: Channel order, `"bgr"` or `"rgb"`.
            confidence: Also give the fused probability of each label.
            semantic: Also give the labels of the semantic branch alone.

        Returns:
            Arrays in scratch memory of the GPU.

        Raises:
            EngineError: A graph cannot be run on this size.
        """
        gpu = self._gpu
        gpu.begin()
        image, content = self._preprocess(frame, color)

        front = self._front.run_on_device({"image": image})
        logits, error_logit = front["logits"][0], front["error_logit"][0][0]

        geometry = self._geometry(frame, content, image, error_logit)
        grid = geometry.grid_size
        budget = None if self.budget is None else int(self.budget * grid[0] * grid[1] * sum(self.row_work))
        selection = enqueue_select(
            gpu, error_logit, self._level, seen=geometry.seen(), row_work=self.row_work, budget=budget
        )

        if self._weights is None:
            detail, where, written, used = self._everywhere(front), selection.flagged, None, None
        else:
            low, coarse, gate = front["low"][0], front["coarse"][0], front["gate"][0]
            gate = gate.view(gate.shape[0])
            detail = enqueue_refine(gpu, self._weights, selection, logits, low, coarse, gate)
            where, written = selection.slots[2].view(*grid), selection.counts[2]
            used = self._weights.host.row_work

        fused = enqueue_fuse_labels(gpu, logits, detail, where, geometry, confidence=confidence)

        faults = gpu.zeros((len(BRANCHES),), "int32")
        for branch, (values, count) in enumerate(((logits, None), (error_logit, None), (detail, written))):
            enqueue_faults(gpu, faults, branch, values, count)
        return DeviceSegmentation(
            labels=fused.labels,
            error_probability=enqueue_calibrate(gpu, error_logit, self._knots),
            flagged=selection.flagged,
            counts=selection.counts,
            left_out=selection.left_out,
            faults=faults,
            classes=self.manifest.classes,
            geometry=geometry,
            row_work=used,
            confidence=fused.confidence,
            semantic_labels=enqueue_fuse_labels(gpu, logits, None, None, geometry).labels if semantic else None,
        )

    def branches(self, frame: Any, *, color: str = "bgr", scale: float = 1.0) -> Branches:
        """Run all three branches densely, decide nothing, and wait; arguments as `Runtime.branches` has them."""
        gpu = self._gpu
        gpu.begin()
        image, content = self._preprocess(frame, color, scale)
        front = self._front.run_on_device({"image": image})
        logits, error_logit = front["logits"][0], front["error_logit"][0][0]
        geometry = self._geometry(frame, content, image, error_logit)
        found = []
        for values in (logits, error_logit, self._everywhere(front)):
            host = gpu.pinned(values.shape, dtype_of(values))
            gpu.copy(host, values)
            found.append(host)
        done = gpu.event()
        done.record(gpu.current())
        done.synchronize()
        logits, error_logit, detail = (gpu.floats(host) for host in found)
        check_finite([not np.isfinite(values).all() for values in (logits, error_logit, detail)])
        return Branches(logits, error_logit, detail, geometry)

    def _preprocess(self, frame: Any, color: str, scale: float = 1.0) -> tuple[Any, tuple[int, int]]:
        """The network's input, and the size of the part of it that shows the frame."""
        spec = self.manifest.input
        content, padded = spec.sizes((frame.shape[0], frame.shape[1]), scale)
        dtype = self._front.inputs["image"].dtype
        image = enqueue_preprocess(
            self._gpu, frame, content, padded, mean=spec.mean, std=spec.std, bgr=color == "bgr", dtype=dtype
        )
        return image, content

    def _geometry(self, frame: Any, content: tuple[int, int], image: Any, grid_map: Any) -> Geometry:
        grid, padded, output = ((size[0], size[1]) for size in (grid_map.shape, image.shape[2:], frame.shape))
        return Geometry(grid, padded, content, output, self.manifest.align_corners)

    def _everywhere(self, front: Mapping[str, Any]) -> Any:
        """Detail logits of every grid pixel, `[classes, h, w]`, from the refine graph."""
        return self._stage3.run_on_device({name: front[name] for name in self._stage3.inputs})["detail_logits"][0]
