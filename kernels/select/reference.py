"""The definition, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.select.checks import check, check_finite
from errseg_rt.kernels.select.layers import LAYERS, Layers
from errseg_rt.kernels.select.operands import Selection

FLOATS = ("float32", "float16")


def select_reference(
    error_logit: npt.NDArray[np.floating],  # [h, w]
    threshold: float,
    *,
    seen: tuple[int, int] | None = None,
    layers: Layers = LAYERS,
    budget: int | None = None,
) -> Selection:
    """Flag pixels in descending order of their error logit until their supports fill the budget.

    Arguments, result and what is raised as those of `errseg_rt.kernels.select.select`.
    """
    check(error_logit, threshold, seen, layers, budget, FLOATS)
    check_finite(error_logit)
    height, width = error_logit.shape
    rows, cols = seen or (height, width)
    # P_ep > t, compared as logits: a sigmoid saturates into ties.
    is_over = error_logit.astype(np.float64) > np.log(threshold) - np.log1p(-threshold)
    is_over[rows:], is_over[:, cols:] = False, False
    pixels = np.flatnonzero(is_over)
    order = pixels[np.argsort(-error_logit.ravel()[pixels].astype(np.float64), kind="stable")]
    taken = len(order)
    if budget is not None:
        while taken and supports_reference(_mask(order[:taken], (height, width)), layers).work(layers) > budget:
            taken -= 1
    return supports_reference(_mask(order[:taken], (height, width)), layers, len(order) - taken)


def supports_reference(flagged: npt.NDArray[np.bool_], layers: Layers = LAYERS, left_out: int = 0) -> Selection:
    """Supports of layers whose result is wanted at the flagged pixels.

    Args:
        flagged: bool [h, w].
        layers: Whose kernels say how far F1 and F2 reach.
        left_out: How many pixels a budget had no room for.

    Returns:
        The supports, clipped to the grid; rows beyond a count are -1.
    """
    masks = [_dilated(flagged, reach) for reach in layers.reach]
    rows, slots = np.full((2, 3, flagged.size), -1, np.int32)
    counts = np.array([np.count_nonzero(mask) for mask in masks], np.int32)
    for layer, (mask, count) in enumerate(zip(masks, counts, strict=True)):
        rows[layer, :count] = np.flatnonzero(mask)
        slots[layer, mask.ravel()] = np.arange(count)
    return Selection(rows, slots, counts, np.array(left_out, np.int32), flagged.copy())


def _mask(pixels: npt.NDArray[np.integer], grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(grid, np.bool_)
    mask.ravel()[pixels] = True
    return mask


def _dilated(flagged: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """Mark the pixels that lie within `reach` rows and columns of a flagged one."""
    height, width = flagged.shape
    wide = np.pad(flagged, reach)
    shifted = (wide[i : i + height, j : j + width] for i in range(2 * reach + 1) for j in range(2 * reach + 1))
    return np.asarray(np.logical_or.reduce(list(shifted)), np.bool_)
