"""What comes of a frame, where it was computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.bundle.contract import BRANCHES
from errseg_rt.errors import EngineError
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.kernels.fuse_labels import upsample
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.select.layers import Layers
from errseg_rt.kernels.select.operands import work_of
from errseg_rt.places.place import Place

_ARRAYS = (
    "labels", "error_probability", "flagged", "counts", "left_out", "faults", "confidence", "semantic_labels",
    "semantic_error_probability", "instance_map", "instance_classes", "instance_scores", "instance_count",
)  # fmt: skip
_WORDS = {
    "semantic": "the semantic branch",
    "error": "the error-prediction branch",
    "detail": "the detail branch",
    "localization": "the localization branch",
}


@dataclass(frozen=True, eq=False)
class Outcome:
    """Labels of a frame and how far to trust them, as arrays of the place; the host knows no value that lies on a GPU.

    Attributes:
        place: Where they lie.
        classes: What the ids mean.
        geometry: How the frame lies on the grid.
        layers: Those of refinement; None where it computed the whole stage.
        labels: Fused class ids, `uint8 [H, W]`.
        error_probability: Calibrated probability that the label is wrong, on the grid, `float32 [h, w]`; of a bundle
            without a map for the detail branch's labels that the semantic one is. None where the bundle has no error
            map.
        flagged: Grid pixels that the detail branch labelled again, `bool [h, w]`; this and the next two are None where
            the bundle has no detail branch.
        counts: How many pixels F1, F2 and F3 have, `int32 [3]`; the last is that of the flagged ones.
        left_out: Number of grid pixels with P_ep > t for which the budget had no room, `int32 []`.
        faults: For each branch that is watched, whether a logit of it is not finite, 1 or 0, `int32 [n]`; labels are
            then worth nothing.
        watched: Names of these branches; on a CPU others were looked at before anything was decided by them.
        confidence: Fused probability of the winning class, `float32 [H, W]`; None unless asked for.
        semantic_labels: Class ids of the semantic branch alone, `uint8 [H, W]`; None unless asked for.
        semantic_error_probability: Calibrated probability that the semantic label is wrong, on the grid,
            `float32 [h, w]`; None unless semantic labels were asked for.
        instance_map: Whose each pixel is, `int32 [H, W]`, 0 for nobody's; this and the next three are None where the
            bundle has no boxes, or instances were not asked for.
        instance_classes: Class ids of the instances, `int32 [most]`, as far as their count.
        instance_scores: Their scores, `float32 [most]`, likewise.
        instance_count: How many there are, `int32 []`.
    """

    place: Place
    classes: ClassSet
    geometry: Geometry
    layers: Layers | None
    labels: Any
    error_probability: Any | None
    flagged: Any | None
    counts: Any | None
    left_out: Any | None
    faults: Any
    watched: tuple[str, ...] = BRANCHES
    confidence: Any | None = None
    semantic_labels: Any | None = None
    semantic_error_probability: Any | None = None
    instance_map: Any | None = None
    instance_classes: Any | None = None
    instance_scores: Any | None = None
    instance_count: Any | None = None

    def arrays(self) -> dict[str, Any]:
        """Those of the attributes that are arrays, by name."""
        values = {name: getattr(self, name) for name in _ARRAYS}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def work(self) -> float:
        """Work of refinement as a share of the dense stage's, in 0..1, once the counts are on the host."""
        if self.counts is None:
            return 0.0
        if self.layers is None:
            return 1.0
        height, width = self.geometry.grid_size
        return work_of(self.counts, self.layers) / (height * width * self.layers.of_pixel)

    def with_arrays(self, arrays: Mapping[str, Any]) -> Outcome:
        """The same with other arrays, by name."""
        changes: dict[str, Any] = dict(arrays)
        return replace(self, **changes)

    def cpu(self) -> Segmentation:
        """Wait for the frame and copy everything to the host; its `timings` are unknown, and empty.

        Raises:
            EngineError: A branch gave values that are not finite.
        """
        with self.place.entered():
            arrays = self.place.download(self.arrays())
            self.place.wait()
        return self.with_arrays(arrays).on_host({})

    def on_host(self, timings: Mapping[str, float]) -> Segmentation:
        """What is known of the frame, where the arrays were downloaded and have arrived.

        Args:
            timings: Milliseconds by step.

        Raises:
            EngineError: A branch gave values that are not finite.
        """
        here = self.with_arrays({name: self.place.host(array) for name, array in self.arrays().items()})
        check_finite(here.faults, self.watched)
        return Segmentation(
            labels=here.labels,
            error_probability=here.error_probability,
            flagged=np.zeros(self.geometry.grid_size, bool) if here.flagged is None else here.flagged,
            classes=self.classes,
            geometry=self.geometry,
            timings=timings,
            left_out=0 if here.left_out is None else int(here.left_out),
            work=here.work,
            confidence=here.confidence,
            semantic_labels=here.semantic_labels,
            semantic_error_probability=here.semantic_error_probability,
            instances=here._instances(),
        )

    def _instances(self) -> Instances | None:
        """What is known of the instances, of arrays on the host."""
        if self.instance_map is None or self.instance_classes is None or self.instance_scores is None:
            return None
        count = int(self.instance_count or 0)
        errors = None if self.error_probability is None else upsample(self.error_probability, self.geometry)
        return Instances.of(
            self.instance_map, self.instance_classes[:count], self.instance_scores[:count], self.classes, errors
        )


def check_finite(faults: Iterable[object], branches: Iterable[str]) -> None:
    """Raise EngineError where one of some branches has a fault."""
    wrong = [_WORDS[branch] for branch, fault in zip(branches, faults, strict=True) if fault]
    if wrong:
        raise EngineError(
            f"{' and '.join(dict.fromkeys(wrong))} gave values that are not finite: in fp16, take bf16 or fp32; where "
            "that is the same, the bundle's weights are damaged: export it again"
        )
