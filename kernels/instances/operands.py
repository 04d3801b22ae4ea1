"""What finding instances takes and gives, on any device, and the numbers that all implementations share.

They shall give equal maps, so that nothing that is decided may hang on how something is rounded. Pixels are ranked by
differences of logits, boxes compared in float32 without a division or a sum of products, shares of a cell in whole
numbers; scores are rounded to whole steps that are coarse beside the rounding of exponentials, and summed as integers.
How far two boxes agree takes divisions: of IEEE, of what is no sum of products, and as whole steps again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.arrays import check_array, described
from errseg_rt.kernels.fuse_labels.operands import check_operands
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.instances.spec import InstanceSpec

Array = TypeVar("Array")
ONE = 1 << 20
"""A score of 1, in steps."""
LEAST_SIDE = 1.0
"""Grid cells that a side of a box has at least: a network may well predict less than nothing for a small instance."""


@dataclass(frozen=True)
class InstanceMap(Generic[Array]):
    """Instances of a frame; NumPy arrays, or a GPU's where the operands were such.

    Attributes:
        map: int32 [H, W], 0 where there is none, k for the k-th instance, by falling score. Some may have no pixel.
        classes: int32 [most], class ids; what is beyond the count is not defined, here and in `scores`.
        scores: float32 [most], confidence: mean score of the pixels on the grid, in 0..1.
        count: int32 [], how many instances there are.
    """

    map: Array
    classes: Array
    scores: Array
    count: Array


def check(
    semantic: Any,
    detail: Any,
    flagged: Any,
    boxes: Any,
    labels: Any,
    geometry: Geometry,
    spec: InstanceSpec,
    floats: Sequence[str],
) -> None:
    """Raise a ValueError unless these are operands as `errseg_rt.kernels.instances` describes them."""
    check_operands(semantic, detail, flagged, geometry, None, floats)
    place = described("semantic", semantic).place
    check_array("boxes", boxes, ("float32",), (4 * len(spec.classes), *geometry.grid_size), place=place)
    check_array("labels", labels, ("uint8",), geometry.output_size, place=place)
    if spec.classes[-1] >= len(semantic):
        raise ValueError(f"the last thing is class {spec.classes[-1]}, and semantic has {len(semantic)} classes")


def thing_table(spec: InstanceSpec, classes: int) -> npt.NDArray[np.int32]:
    """Which thing each class is, `[C]`, and -1 for a class without instances."""
    table = np.full(classes, -1, np.int32)
    table[list(spec.classes)] = np.arange(len(spec.classes))
    return table


def share_of_areas(overlap: float) -> np.float32:
    """The share s of the sum of two areas that their intersection exceeds where their IoU exceeds `overlap`.

    Of areas A and B, I > overlap (A + B - I) is I > s (A + B), which needs no union, and so no sum of a product, which
    compilers may round once or twice.
    """
    return np.float32(overlap / (1 + overlap))


def steps(score: float) -> int:
    """A score in steps."""
    return round(score * ONE)
