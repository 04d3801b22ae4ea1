"""The way of a frame on a GPU, as a function of tensors that never waits for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from errseg_rt.branches import Branches
from errseg_rt.bundle import Bundle
from errseg_rt.device.segmentation import BRANCHES, DeviceSegmentation
from errseg_rt.engines import DeviceEngine
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.kernels.fuse_labels import Geometry, fuse_labels
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.kernels.refine import DeviceWeights, refine
from errseg_rt.kernels.select import DeviceSelection, select
from errseg_rt.refinement import stage3_weights


class DeviceCascade:
    """Preprocess, front graph, selection, refinement and fusion on one stream, ready for a CUDA graph.

    What a frame needs is decided on the device: selection leaves counts there, and programs of the kernels that lie
    past them end at once. A frame costs the same launches whatever it shows.

    Args:
        bundle: The bundle.
        front: Executes its front graph.
        stage3: Executes its refine graph, where all pixels are refined.
        device: Where it all lies.
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
        device: torch.device,
        threshold: float,
        detail: str,
        budget: float | None = None,
    ) -> None:
        self.manifest, self.device, self.threshold, self.budget = bundle.manifest, device, threshold, budget
        self._front, self._stage3 = front, stage3
        logits, classes = front.outputs["logits"], len(bundle.manifest.classes)
        if logits.shape[1] != classes:
            raise BundleError(
                f"{bundle.folder}: the front graph has {logits.shape[1]} classes, the manifest has {classes}; export "
                "it again"
            )
        self._weights = None
        if detail == "sparse":
            self._weights = DeviceWeights.of(stage3_weights(bundle), device, getattr(torch, logits.dtype))
        knots = (bundle.manifest.calibration.logits, bundle.manifest.calibration.probabilities)
        self._knots = torch.tensor(knots, dtype=torch.float32, device=device)

    @property
    def row_work(self) -> tuple[int, int, int]:
        """Multiply-adds of refinement at a pixel of F1, F2 and F3; in equal parts where it is dense anyway."""
        return (1, 1, 1) if self._weights is None else self._weights.host.row_work

    @torch.no_grad()
    def run(
        self, frame: Tensor, *, color: str = "bgr", confidence: bool = False, semantic: bool = False
    ) -> DeviceSegmentation:
        """Enqueue a frame on the current stream.

        Args:
            frame: `uint8 [H, W, 3]` on the device, of any strides.
            color: Channel order, `"bgr"` or `"rgb"`.
            confidence: Also give the fused probability of each label.
            semantic: Also give the labels of the semantic branch alone.

        Raises:
            EngineError: A graph cannot be run on this size.
            ValueError: The frame is no frame, or `color` is neither.
        """
        image, content = self._preprocess(frame, color)

        front = self._front.run_on_device({"image": image})
        logits, error_logit = front["logits"][0], front["error_logit"][0, 0]

        geometry = self._geometry(frame, content, image, error_logit)
        grid = geometry.grid_size
        budget = None if self.budget is None else int(self.budget * grid[0] * grid[1] * sum(self.row_work))
        selection = select(error_logit, self.threshold, seen=geometry.seen(), row_work=self.row_work, budget=budget)

        if self._weights is None:
            detail, where, used = self._everywhere(front), selection.flagged, None
        else:
            low, coarse, gate = front["low"][0], front["coarse"][0], front["gate"].flatten()
            detail = refine(self._weights, selection, logits, low, coarse, gate)
            where, used = selection.slots[2].view(grid), self._weights.host.row_work

        fused = fuse_labels(logits, detail, where, geometry, confidence=confidence)

        branches = (logits, error_logit, detail if used is None else _written(detail, selection))
        return DeviceSegmentation(
            labels=fused.labels,
            error_probability=calibrated(error_logit, self._knots),
            flagged=selection.flagged,
            counts=selection.counts,
            left_out=selection.left_out,
            is_finite=torch.stack([_is_finite(branch) for branch in branches]),
            classes=self.manifest.classes,
            geometry=geometry,
            row_work=used,
            confidence=fused.confidence,
            semantic_labels=fuse_labels(logits, None, None, geometry).labels if semantic else None,
        )

    @torch.no_grad()
    def branches(self, frame: Tensor, *, color: str = "bgr", scale: float = 1.0) -> Branches:
        """Run all three branches densely, decide nothing, and wait; arguments as `Runtime.branches` has them."""
        image, content = self._preprocess(frame, color, scale)
        front = self._front.run_on_device({"image": image})
        error_logit = front["error_logit"][0, 0]
        geometry = self._geometry(frame, content, image, error_logit)
        logits, detail = front["logits"][0], self._everywhere(front)
        for branch, values in zip(BRANCHES, (logits, error_logit, detail), strict=True):
            if not _is_finite(values):
                raise EngineError(f"{branch} gave logits that are not finite; use precision='bf16' or 'fp32'")
        logits, error_logit, detail = (values.float().cpu() for values in (logits, error_logit, detail))
        return Branches(logits.numpy(), error_logit.numpy(), detail.numpy(), geometry)

    def _preprocess(self, frame: Tensor, color: str, scale: float = 1.0) -> tuple[Tensor, tuple[int, int]]:
        """The network's input, and the size of the part of it that shows the frame."""
        spec = self.manifest.input
        content, padded = spec.sizes((frame.shape[0], frame.shape[1]), scale)
        dtype = self._front.inputs["image"].dtype
        image = preprocess(frame, content, padded, mean=spec.mean, std=spec.std, color=color, dtype=dtype)
        return image, content

    def _geometry(self, frame: Tensor, content: tuple[int, int], image: Tensor, grid_map: Tensor) -> Geometry:
        grid, padded, output = ((size[0], size[1]) for size in (grid_map.shape, image.shape[2:], frame.shape))
        return Geometry(grid, padded, content, output, self.manifest.align_corners)

    def _everywhere(self, front: Mapping[str, Tensor]) -> Tensor:
        """Detail logits of every grid pixel, `[classes, h, w]`, from the refine graph."""
        detail = self._stage3.run_on_device({name: front[name] for name in self._stage3.inputs})["detail_logits"]
        return detail[0]


def _is_finite(values: Tensor) -> Tensor:
    """Whether all are, `bool []`; the least and the largest are NaN where any is."""
    return torch.isfinite(torch.stack(torch.aminmax(values))).all()


def _written(rows: Tensor, selection: DeviceSelection) -> Tensor:
    """Rows of refinement, with zeros in those that hold nothing."""
    is_written = torch.arange(len(rows), device=rows.device) < selection.counts[2]
    return torch.where(is_written[:, None], rows, 0)


def calibrated(error_logit: Tensor, knots: Tensor) -> Tensor:
    """Error probability, `float32 [h, w]`: `Calibration` on the device.

    Args:
        error_logit: `[h, w]`.
        knots: Logits and probabilities of the knots, `float32 [2, n]`.
    """
    logits: Tensor = knots[0]
    probabilities: Tensor = knots[1]
    if len(logits) == 1:
        return probabilities.expand(error_logit.shape).contiguous()
    value = error_logit.float().clamp(logits[0], logits[-1])
    upper = torch.searchsorted(logits, value).clamp_(1, len(logits) - 1)
    # Two knots may be one in float32.
    share = (value - logits[upper - 1]) / (logits[upper] - logits[upper - 1]).clamp_min(1e-30)
    probability: Tensor = torch.lerp(probabilities[upper - 1], probabilities[upper], share)
    return probability
