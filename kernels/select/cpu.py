"""Selection on the CPU: what every prefix of the order would cost is found at once.

A pixel belongs to the support F_k of a prefix as soon as the prefix holds a pixel of its neighbourhood: from the least
rank there on. So the least rank in every neighbourhood, counted, gives the size of every prefix's supports.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.compiled import compiled
from errseg_rt.kernels.select.checks import check, check_finite, level
from errseg_rt.kernels.select.layers import LAYERS, Layers
from errseg_rt.kernels.select.operands import Rows, Selection
from errseg_rt.kernels.select.reference import FLOATS

_NEIGHBOURS = np.ones((3, 3), np.uint8)


def select(
    error_logit: npt.NDArray[np.floating],  # [h, w]
    threshold: float,
    *,
    seen: tuple[int, int] | None = None,
    layers: Layers = LAYERS,
    budget: int | None = None,
) -> Selection:
    """Select on NumPy arrays; `errseg_rt.kernels.select` says it in full."""
    check(error_logit, threshold, seen, layers, budget, FLOATS)
    check_finite(error_logit)
    rows, cols = seen or error_logit.shape
    logits = error_logit.astype(np.float32, copy=False)
    flagged = logits > np.float32(level(threshold))
    flagged[rows:] = False
    flagged[:, cols:] = False
    selection = _selection(flagged, layers, 0)
    if budget is None or selection.work(layers) <= budget:
        return selection
    over = selection.support(3)
    order = _order(logits, over, most=budget // max(layers.of_pixel, 1))
    taken = _fitting(order, selection.grid_size, layers, budget)
    flagged[:] = False
    flagged.ravel()[order[:taken]] = True
    return _selection(flagged, layers, len(over) - taken)


def _selection(flagged: npt.NDArray[np.bool_], layers: Layers, left_out: int) -> Selection:
    rows, slots = (np.empty((3, flagged.size), np.int32) for _ in range(2))
    mask = flagged.view(np.uint8)
    counts = [_number(mask.ravel(), rows[2], slots[2])]
    for layer in (1, 0):
        if layers.kernels[layer + 1] > 1:
            mask = np.asarray(cv2.dilate(mask, _NEIGHBOURS), np.uint8)
            counts.insert(0, _number(mask.ravel(), rows[layer], slots[layer]))
        else:
            rows[layer, : counts[0]], slots[layer] = rows[layer + 1, : counts[0]], slots[layer + 1]
            counts.insert(0, counts[0])
    return Selection(rows, slots, np.array(counts, np.int32), np.array(left_out, np.int32), flagged)


def _order(logits: npt.NDArray[np.float32], pixels: Rows, most: int) -> Rows:
    """The pixels by descending logit, ties by index; at least the first `most`."""
    values = logits.ravel()[pixels] + np.float32(0)  # the sum makes -0 a 0
    if most < len(pixels):  # no prefix that fits is longer
        contenders = values >= np.partition(values, len(values) - 1 - most)[len(values) - 1 - most]
        pixels, values = pixels[contenders], values[contenders]
    # As integers, the bits of positive floats have their order, those of negative ones the opposite order.
    bits = values.view(np.int32)
    ascending = np.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).astype(np.int64)
    return (np.sort((-ascending << 32) | pixels) & 0xFFFFFFFF).astype(np.int32)


def _fitting(order: Rows, grid: tuple[int, int], layers: Layers, budget: int) -> int:
    """Length of the longest prefix of the order whose work is within the budget."""
    never = len(order)
    # OpenCV has no minimum filter for int32; these floats hold every rank.
    rank = np.full(grid, never, np.float32 if grid[0] * grid[1] < 2**24 else np.float64)
    rank.ravel()[order] = np.arange(never)
    work = np.zeros(never, np.int64)
    for layer in (2, 1, 0):
        _add_work(rank.ravel(), layers.work[layer], work)
        if layers.kernels[layer] > 1:
            rank = np.asarray(cv2.erode(rank, _NEIGHBOURS))
    return int(np.searchsorted(np.cumsum(work), budget, side="right"))


@compiled
def _add_work(rank, of_row, work):
    """Add the work of a support's pixels to that of the rank with which they enter."""
    for pixel in range(len(rank)):
        if rank[pixel] < len(work):
            work[int(rank[pixel])] += of_row


@compiled
def _number(mask, rows, slot):
    """Write the flat indices of a support's pixels and the position of each among them; how many there are."""
    count = 0
    for pixel in range(len(mask)):
        rows[count] = pixel
        slot[pixel] = count if mask[pixel] else -1
        count += mask[pixel]
    return count
