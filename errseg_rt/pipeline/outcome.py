"""What the runtime knows of a frame whose results stay on the GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.errors import EngineError
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.kernels.geometry import Geometry

_ARRAYS = (
    "labels", "error_probability", "flagged", "counts", "left_out", "faults", "confidence", "semantic_labels"
)  # fmt: skip
BRANCHES = ("the semantic branch", "the error-prediction branch", "the detail branch")


@dataclass(frozen=True, eq=False)
class DeviceSegmentation:
    """Labels of a frame and how far to trust them, as arrays of the GPU; the host knows none of their values.

    Attributes:
        labels: Fused class ids, `uint8 [H, W]`.
        error_probability: Calibrated probability that the semantic label is wrong, on the grid, `float32 [h, w]`.
        flagged: Grid pixels that the detail branch labelled again, `bool [h, w]`.
        counts: How many pixels F1, F2 and F3 have, `int32 [3]`; the last is that of the flagged ones.
        left_out: Number of grid pixels with P_ep > t for which the budget had no room, `int32 []`.
        faults: Of each of `BRANCHES`, whether a logit of it is not finite, 1 or 0, `int32 [3]`; labels are then worth
            nothing.
        classes: What the ids mean.
        geometry: How the frame lies on the grid.
        row_work: Multiply-adds of a pixel in F1, F2 and F3; None where the whole stage was computed.
        confidence: Fused probability of the winning class, `float32 [H, W]`; None unless asked for.
        semantic_labels: Class ids of the semantic branch alone, `uint8 [H, W]`; None unless asked for.
    """

    labels: Any
    error_probability: Any
    flagged: Any
    counts: Any
    left_out: Any
    faults: Any
    classes: ClassSet
    geometry: Geometry
    row_work: tuple[int, int, int] | None
    confidence: Any | None = None
    semantic_labels: Any | None = None

    def arrays(self) -> dict[str, Any]:
        """Those of the attributes that are arrays, by name."""
        values = {name: getattr(self, name) for name in _ARRAYS}
        return {name: value for name, value in values.items() if value is not None}

    def with_arrays(self, arrays: Mapping[str, Any]) -> DeviceSegmentation:
        """The same with other arrays, by name."""
        changes: dict[str, Any] = dict(arrays)
        return replace(self, **changes)

    def cpu(self) -> Segmentation:
        """Wait for the GPU and copy everything to the host, from torch's tensors; `timings` are unknown, and empty.

        Raises:
            EngineError: A branch gave logits that are not finite.
        """
        return self.with_arrays({name: tensor.cpu().numpy() for name, tensor in self.arrays().items()}).on_host({})

    def on_host(self, timings: Mapping[str, float]) -> Segmentation:
        """What is known of the frame, where the arrays are NumPy's.

        Args:
            timings: Milliseconds per stage.

        Raises:
            EngineError: A branch gave logits that are not finite.
        """
        check_finite(self.faults)
        grid = self.geometry.grid_size
        work = 1.0
        if self.row_work is not None:
            counted = sum(count * work for count, work in zip(self.counts.tolist(), self.row_work, strict=True))
            work = counted / (grid[0] * grid[1] * sum(self.row_work))
        return Segmentation(
            labels=self.labels,
            error_probability=self.error_probability,
            flagged=self.flagged,
            left_out=int(self.left_out),
            work=work,
            classes=self.classes,
            geometry=self.geometry,
            timings=timings,
            confidence=self.confidence,
            semantic_labels=self.semantic_labels,
        )


def check_finite(faults: Sequence[object]) -> None:
    """Raise EngineError where a branch of `BRANCHES` has a fault."""
    wrong = [branch for branch, fault in zip(BRANCHES, faults, strict=True) if fault]
    if wrong:
        raise EngineError(
            f"{' and '.join(wrong)} gave logits that are not finite; use precision='bf16' or 'fp32', or, where that "
            "gives the same, export the bundle again"
        )
