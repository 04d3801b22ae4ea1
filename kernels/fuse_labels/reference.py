"""The definition of fusion, in NumPy and float64."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.fuse_labels.geometry import Geometry

Logits = npt.NDArray[np.float32] | npt.NDArray[np.float16]

# Elements of a band's class map: 32 MiB in float64.
BAND_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class FusedLabels:
    """One label per pixel of the frame.

    Attributes:
        labels: uint8 [H, W].
        confidence: float32 [H, W], the fused probability of the label, or None where it was not asked for.
    """

    labels: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32] | None


def fuse_labels_reference(
    semantic: Logits,  # [C, h, w]
    detail: Logits | None,  # [C, h, w]
    flagged: npt.NDArray[np.bool_] | None,  # [h, w]
    geometry: Geometry,
    *,
    confidence: bool = False,
) -> FusedLabels:
    """Label every pixel of the frame (Gong et al. 2021, eq. 5), in float64.

    On the grid, P is softmax(detail) where flagged and softmax(semantic) elsewhere. P is interpolated bilinearly at
    each pixel of the frame, and the label is the class where it is largest: the lowest such class on ties.

    Args:
        semantic: float32 or float16 [C, h, w], logits of the semantic branch, C from 2 to 255; not NaN, not +inf.
        detail: logits of the detail branch, of the same shape and dtype, or None to replace nothing.
        flagged: bool [h, w], True where `detail` counts; None exactly when `detail` is None.
        geometry: how the pixels of the frame lie on the grid.
        confidence: whether to return the probability of the label too.

    Returns:
        The labels, and the confidence where it was asked for.

    Raises:
        ValueError: a rank, shape, dtype or class count other than these, or only one of `detail` and `flagged`.
    """
    check_logits(semantic, detail, flagged, geometry)
    probabilities = _softmax(semantic)
    if detail is not None and flagged is not None:
        probabilities = np.where(flagged, _softmax(detail), probabilities)
    labels = np.empty(geometry.output_size, np.uint8)
    largest = np.empty(geometry.output_size, np.float32) if confidence else None
    height, width = geometry.output_size
    band = max(1, BAND_ELEMENTS // (len(semantic) * width))
    for begin in range(0, height, band):
        rows = slice(begin, min(begin + band, height))
        fused = _interpolate(probabilities, geometry, rows)
        labels[rows] = fused.argmax(axis=0)
        if largest is not None:
            largest[rows] = fused.max(axis=0)
    return FusedLabels(labels, largest)


def upsample_reference(
    grid_map: npt.NDArray[np.float32] | npt.NDArray[np.float16],  # [h, w]
    geometry: Geometry,
) -> npt.NDArray[np.float32]:
    """Interpolate one map bilinearly at every pixel of the frame, in float64.

    Args:
        grid_map: float32 or float16 [h, w], say the error probability.
        geometry: how the pixels of the frame lie on the grid.

    Returns:
        float32 [H, W].

    Raises:
        ValueError: another rank, shape or dtype.
    """
    check_map(grid_map, geometry)
    every_row = slice(0, geometry.output_size[0])
    return np.asarray(_interpolate(grid_map[None].astype(np.float64), geometry, every_row)[0], np.float32)


def check_logits(semantic: Any, detail: Any, flagged: Any, geometry: Geometry) -> None:
    """Raise a ValueError unless these are operands of fusion as `fuse_labels_reference` describes them."""
    if semantic.ndim != 3:
        raise ValueError(f"semantic must be [C, h, w], got {semantic.shape = }")
    if semantic.dtype not in (np.float32, np.float16):
        raise ValueError(f"semantic must be float32 or float16 logits, got {semantic.dtype = }")
    if not 2 <= len(semantic) <= 255:
        raise ValueError(f"semantic must have 2 to 255 classes, got C = {len(semantic)}")
    if semantic.shape[1:] != geometry.grid_size:
        raise ValueError(f"semantic must be on the grid, {geometry.grid_size = }, got {semantic.shape = }")
    if (detail is None) != (flagged is None):
        given, missing = ("flagged", "detail") if detail is None else ("detail", "flagged")
        raise ValueError(f"detail and flagged go together: got {given}, but {missing} is None")
    if detail is None:
        return
    if detail.shape != semantic.shape:
        raise ValueError(f"detail must have the shape of semantic, {semantic.shape}, got {detail.shape = }")
    if detail.dtype != semantic.dtype:
        raise ValueError(f"detail must have the dtype of semantic, {semantic.dtype}, got {detail.dtype = }")
    if flagged.shape != geometry.grid_size:
        raise ValueError(f"flagged must be on the grid, {geometry.grid_size = }, got {flagged.shape = }")
    if flagged.dtype != np.bool_:
        raise ValueError(f"flagged must be bool, got {flagged.dtype = }")


def check_map(grid_map: Any, geometry: Geometry) -> None:
    """Raise a ValueError unless this is a float32 or float16 map on the grid."""
    if grid_map.shape != geometry.grid_size:
        raise ValueError(f"the map must be [h, w] on the grid, {geometry.grid_size = }, got {grid_map.shape = }")
    if grid_map.dtype not in (np.float32, np.float16):
        raise ValueError(f"the map must be float32 or float16, got {grid_map.dtype = }")


def _softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=0)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=0))


def _interpolate(
    maps: npt.NDArray[np.float64],  # [C, h, w]
    geometry: Geometry,
    rows: slice,
) -> npt.NDArray[np.float64]:  # [C, rows, W]
    height, width = geometry.grid_size
    vertical, horizontal = geometry.rows(), geometry.cols()
    top = vertical.lower[rows]
    down = vertical.weight[rows, None]
    band = maps[:, top] * (1 - down) + maps[:, np.minimum(top + 1, height - 1)] * down
    left, across = horizontal.lower, horizontal.weight
    return np.asarray(band[:, :, left] * (1 - across) + band[:, :, np.minimum(left + 1, width - 1)] * across)
