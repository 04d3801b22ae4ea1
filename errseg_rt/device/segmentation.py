"""What the runtime knows of a frame whose results stay on the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from errseg_rt.classes import ClassSet
from errseg_rt.errors import EngineError
from errseg_rt.kernels.fuse_labels import Geometry
from errseg_rt.segmentation import Segmentation

BRANCHES = ("the semantic branch", "the error-prediction branch", "the detail branch")


@dataclass(frozen=True, eq=False)
class DeviceSegmentation:
    """Labels of a frame and how far to trust them, as tensors of the GPU; the host knows none of their values.

    Attributes:
        labels: Fused class ids, `uint8 [H, W]`.
        error_probability: Calibrated probability that the semantic label is wrong, on the grid, `float32 [h, w]`.
        flagged: Grid pixels that the detail branch labelled again, `bool [h, w]`.
        counts: How many pixels F1, F2 and F3 have, `int32 [3]`; the last is that of the flagged ones.
        left_out: Number of grid pixels with P_ep > t for which the budget had no room, `int32 []`.
        is_finite: Of each of `BRANCHES`, whether its logits are finite, `bool [3]`; labels are worth nothing where one
            is not.
        classes: What the ids mean.
        geometry: How the frame lies on the grid.
        row_work: Multiply-adds of a pixel in F1, F2 and F3; None where the whole stage was computed.
        confidence: Fused probability of the winning class, `float32 [H, W]`; None unless asked for.
        semantic_labels: Class ids of the semantic branch alone, `uint8 [H, W]`; None unless asked for.
    """

    labels: Tensor
    error_probability: Tensor
    flagged: Tensor
    counts: Tensor
    left_out: Tensor
    is_finite: Tensor
    classes: ClassSet
    geometry: Geometry
    row_work: tuple[int, int, int] | None
    confidence: Tensor | None = None
    semantic_labels: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those of the attributes that are tensors, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if isinstance(value, Tensor)}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> DeviceSegmentation:
        """The same with other tensors, by name."""
        changes: dict[str, Any] = dict(tensors)
        return replace(self, **changes)

    def cpu(self) -> Segmentation:
        """Wait for the GPU and copy everything to the host; `timings` are unknown there, and empty.

        Raises:
            EngineError: A branch gave logits that are not finite.
        """
        return self.with_tensors({name: tensor.cpu() for name, tensor in self.tensors().items()}).on_host({})

    def on_host(self, timings: Mapping[str, float]) -> Segmentation:
        """The same as NumPy arrays, for tensors that lie on the host already.

        Args:
            timings: Milliseconds per stage.

        Raises:
            EngineError: A branch gave logits that are not finite.
        """
        wrong = [branch for branch, is_finite in zip(BRANCHES, self.is_finite.tolist(), strict=True) if not is_finite]
        if wrong:
            raise EngineError(
                f"{' and '.join(wrong)} gave logits that are not finite; use precision='bf16' or 'fp32', or, where "
                "that gives the same, export the bundle again"
            )
        grid = self.geometry.grid_size
        work = 1.0
        if self.row_work is not None:
            counted = sum(count * work for count, work in zip(self.counts.tolist(), self.row_work, strict=True))
            work = counted / (grid[0] * grid[1] * sum(self.row_work))
        return Segmentation(
            labels=self.labels.numpy(),
            error_probability=self.error_probability.numpy(),
            flagged=self.flagged.numpy(),
            left_out=int(self.left_out),
            work=work,
            classes=self.classes,
            geometry=self.geometry,
            timings=timings,
            confidence=None if self.confidence is None else self.confidence.numpy(),
            semantic_labels=None if self.semantic_labels is None else self.semantic_labels.numpy(),
        )
