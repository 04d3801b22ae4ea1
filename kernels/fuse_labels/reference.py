"""The definition of fusion, in NumPy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.fuse_labels.operands import FusedLabels, check_map, check_operands, check_values
from errseg_rt.kernels.geometry import Geometry

Logits = npt.NDArray[np.float32] | npt.NDArray[np.float16]
Flagged = npt.NDArray[np.bool_] | npt.NDArray[np.int32]
Double = npt.NDArray[np.float64]

FLOATS = ("float32", "float16")
# Elements of a band's class map: 32 MiB in float64.
BAND_ELEMENTS = 1 << 22


def fuse_labels_reference(
    semantic: Logits,  # [C, h, w]
    detail: Logits | None,  # [C, h, w] or [n, C]
    flagged: Flagged | None,  # [h, w]
    geometry: Geometry,
    *,
    error: Logits | None = None,  # [h, w]
    confidence: bool = False,
) -> FusedLabels[npt.NDArray[Any]]:
    """Label every pixel of the frame (Gong et al. 2021, eq. 5), in float64.

    On the grid, P is softmax(detail) where flagged and softmax(semantic) elsewhere. P is interpolated bilinearly at
    each pixel of the frame, and the label is the class where it is largest: the lowest such class on ties. Arguments,
    result and what is raised as those of `fuse_labels`.
    """
    check_operands(semantic, detail, flagged, geometry, error, FLOATS)
    check_values(detail, flagged, error)
    probabilities = selected_probabilities(semantic, detail, flagged)
    height, width = geometry.output_size
    labels = np.empty((height, width), np.uint8)
    largest = np.empty((height, width), np.float32) if confidence else None
    band = max(1, BAND_ELEMENTS // (len(semantic) * width))
    for begin in range(0, height, band):
        rows = slice(begin, min(begin + band, height))
        fused = _interpolate(probabilities, geometry, rows)
        labels[rows] = fused.argmax(axis=0)
        if largest is not None:
            largest[rows] = fused.max(axis=0)
    return FusedLabels(labels, largest, None if error is None else upsample_reference(error, geometry))


def upsample_reference(grid_map: Logits, geometry: Geometry) -> npt.NDArray[np.float32]:
    """Interpolate one map bilinearly at every pixel of the frame, in float64.

    Args:
        grid_map: float32 or float16 [h, w], say the error probability.
        geometry: How the pixels of the frame lie on the grid.

    Returns:
        float32 [H, W].

    Raises:
        ValueError: Another rank, shape, dtype or stride.
    """
    check_map("grid_map", grid_map, geometry, FLOATS)
    every_row = slice(0, geometry.output_size[0])
    return np.asarray(_interpolate(grid_map[None].astype(np.float64), geometry, every_row)[0], np.float32)


def selected_probabilities(semantic: Logits, detail: Logits | None, flagged: Flagged | None) -> Double:
    """Class probabilities on the grid, float64 [C, h, w]: of the detail branch where flagged, else of the semantic."""
    probabilities = _softmax(semantic)
    if detail is None or flagged is None:
        return probabilities
    if detail.ndim == 3:
        return np.where(flagged, _softmax(detail), probabilities)
    used = flagged >= 0
    probabilities[:, used] = _softmax(detail.T)[:, flagged[used]]
    return probabilities


def _softmax(logits: npt.NDArray[Any]) -> Double:
    """Over the first axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=0)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=0))


def _interpolate(
    maps: Double,  # [C, h, w]
    geometry: Geometry,
    rows: slice,
) -> Double:  # [C, rows, W]
    height, width = geometry.grid_size
    vertical, horizontal = geometry.rows(), geometry.cols()
    top = vertical.lower[rows]
    down = vertical.weight[rows, None]
    band = maps[:, top] * (1 - down) + maps[:, np.minimum(top + 1, height - 1)] * down
    left, across = horizontal.lower, horizontal.weight
    return np.asarray(band[:, :, left] * (1 - across) + band[:, :, np.minimum(left + 1, width - 1)] * across)
