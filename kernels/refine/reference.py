"""The definition of refinement, in NumPy and float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.refine.checks import check_inputs
from errseg_rt.kernels.refine.weights import Array, RefineWeights
from errseg_rt.kernels.select import Selection

Map = npt.NDArray[np.float64]


def stage_reference(
    weights: RefineWeights,
    logits: Array,  # [K, h, w]
    low: Array,  # [Cl, h, w]
    coarse: Array,  # [Cc, h8, w8]
    gate: Array,  # [C]
) -> Map:  # [K, h, w]
    """Stage 3 of the detail branch at every grid pixel (`RefineWeights` has the formula), in float64.

    Args:
        weights: What the stage has learned.
        logits: float32 [K, h, w], semantic logits; added where `weights.residual`.
        low: float32 [Cl, h, w], features at stride 4.
        coarse: float32 [Cc, h8, w8], output of stage 2; not finer than the grid.
        gate: float32 [C], stage 3's channel weights.

    Returns:
        Detail logits, float64 [K, h, w].

    Raises:
        ValueError: A shape, dtype or layout other than these.
    """
    check_inputs(weights, low.shape[1:], logits, low, coarse, gate)
    projected = _convolve(coarse.astype(np.float64), weights.project_weight[:, :, None, None], weights.project_bias)
    up = _upsample(projected, low.shape[1:], weights.align_corners)
    local = _convolve(low.astype(np.float64), weights.low_weight, weights.low_bias)
    x = up + gate[:, None, None].astype(np.float64) * local
    y = np.maximum(_convolve(x, weights.weight1, weights.bias1), 0)
    z = np.maximum(_convolve(y, weights.weight2, weights.bias2), 0)
    learned = _convolve(z, weights.head_weight[:, :, None, None], weights.head_bias)
    return learned + logits if weights.residual else learned


def refine_reference(
    weights: RefineWeights,
    selection: Selection,
    logits: Array,  # [K, h, w]
    low: Array,  # [Cl, h, w]
    coarse: Array,  # [Cc, h8, w8]
    gate: Array,  # [C]
) -> Map:  # [n3, K]
    """Rows of `stage_reference` at the pixels of F3, in raster order; args and errors as there."""
    dense = stage_reference(weights, logits, low, coarse, gate)
    return dense.reshape(len(dense), -1).T[selection.support(3)]


def _convolve(maps: Map, weight: Array, bias: Array) -> Map:
    """Convolution with as many zeros around the map as keep its size."""
    reach = weight.shape[2] // 2
    wide = np.pad(maps, ((0, 0), (reach, reach), (reach, reach)))
    height, width = maps.shape[1:]
    out = np.repeat(bias.astype(np.float64), height * width).reshape(-1, height, width)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            out += np.tensordot(weight[:, :, i, j].astype(np.float64), wide[:, i : i + height, j : j + width], 1)
    return out


def _upsample(maps: Map, size: tuple[int, ...], align_corners: bool) -> Map:
    """Bilinear interpolation."""
    for axis in (1, 2):
        coarse, fine = maps.shape[axis], size[axis - 1]
        position = np.arange(fine) * (coarse - 1) / max(fine - 1, 1)
        if not align_corners:
            position = np.clip((np.arange(fine) + 0.5) * coarse / fine - 0.5, 0, coarse - 1)
        lower = np.floor(position).astype(np.int64)
        share = (position - lower).reshape([-1 if n == axis else 1 for n in range(3)])
        upper = np.minimum(lower + 1, coarse - 1)
        maps = maps.take(lower, axis) * (1 - share) + maps.take(upper, axis) * share
    return maps
