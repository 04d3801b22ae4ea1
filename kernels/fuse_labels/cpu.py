"""Fusion on the CPU: only cells on a class boundary need arithmetic.

A cell is the square between four neighbouring grid pixels. Where its corners share an argmax, every pixel in it has
that argmax too, since a convex combination keeps the order; the probabilities themselves are not needed. What is left,
a few cells in a hundred, gets a softmax at its corners and is interpolated in the few classes that can win in it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

from errseg_rt.kernels.compiled import compiled
from errseg_rt.kernels.fuse_labels.geometry import Geometry
from errseg_rt.kernels.fuse_labels.reference import FusedLabels, Logits, check_logits, check_map

ZERO, HALF, ONE, QUARTER = np.float32(0), np.float32(0.5), np.float32(1), np.float32(0.25)


def fuse_labels(
    semantic: Logits,  # [C, h, w]
    detail: Logits | None,  # [C, h, w]
    flagged: npt.NDArray[np.bool_] | None,  # [h, w]
    geometry: Geometry,
    *,
    confidence: bool = False,
    threads: int = 1,
) -> FusedLabels:
    """Label every pixel of the frame (Gong et al. 2021, eq. 5), in float32.

    Labels are those of `fuse_labels_reference` except where two classes tie within rounding. Safe to call from several
    Python threads at once; the GIL is released.

    Args:
        semantic: float32 or float16 [C, h, w], logits of the semantic branch, C from 2 to 255; not NaN, not +inf.
            Any strides, here and below; what is not C-contiguous is copied first.
        detail: logits of the detail branch, of the same shape and dtype, or None to replace nothing.
        flagged: bool [h, w], True where `detail` counts; None exactly when `detail` is None.
        geometry: how the pixels of the frame lie on the grid.
        confidence: whether to return the probability of the label too.
        threads: how many threads share the rows of the frame.

    Returns:
        The labels, and the confidence where it was asked for.

    Raises:
        ValueError: a rank, shape, dtype or class count other than these, only one of `detail` and `flagged`, or
            `threads` below 1.
    """
    check_logits(semantic, detail, flagged, geometry)
    if detail is None or flagged is None:
        detail, flagged = semantic, np.zeros(geometry.grid_size, np.bool_)
    logits = _bits(semantic), _bits(detail)
    mask = np.ascontiguousarray(flagged)
    axes = _float32_axes(geometry)
    labels = np.empty(geometry.output_size, np.uint8)
    largest = np.empty(geometry.output_size if confidence else (0, 0), np.float32)

    def band(begin: int, end: int) -> None:
        _fuse_rows(*logits, mask, *axes, begin, end, confidence, labels, largest)

    _share_rows(band, geometry.output_size[0], threads)
    return FusedLabels(labels, largest if confidence else None)


def upsample(
    grid_map: npt.NDArray[np.float32] | npt.NDArray[np.float16],  # [h, w]
    geometry: Geometry,
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """Interpolate one map bilinearly at every pixel of the frame, in float32.

    Args:
        grid_map: float32 or float16 [h, w], say the error probability; any strides.
        geometry: how the pixels of the frame lie on the grid.
        threads: how many threads share the rows of the frame.

    Returns:
        float32 [H, W].

    Raises:
        ValueError: another rank, shape or dtype, or `threads` below 1.
    """
    check_map(grid_map, geometry)
    values = np.ascontiguousarray(grid_map, np.float32)
    axes = _float32_axes(geometry)
    output = np.empty(geometry.output_size, np.float32)

    def band(begin: int, end: int) -> None:
        _upsample_rows(values, *axes, begin, end, output)

    _share_rows(band, geometry.output_size[0], threads)
    return output


def _bits(logits: Logits) -> npt.NDArray[Any]:
    """Return logits as the kernels take them: numba has no float16 on the CPU, so halves go as their bits."""
    compact: npt.NDArray[Any] = np.ascontiguousarray(logits)
    return compact.view(np.uint16) if compact.dtype == np.float16 else compact


def _float32_axes(geometry: Geometry) -> tuple[npt.NDArray[Any], ...]:
    rows, cols = geometry.rows(), geometry.cols()
    # Unsigned columns: numba does not test them for wrap-around, so loops that gather by them become vector code.
    return rows.lower, rows.weight.astype(np.float32), cols.lower.astype(np.uint32), cols.weight.astype(np.float32)


def _share_rows(band: Callable[[int, int], None], height: int, threads: int) -> None:
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    shares = min(threads, height)
    edges = [height * k // shares for k in range(shares + 1)]
    if shares == 1:
        band(0, height)
        return
    with ThreadPoolExecutor(shares - 1) as pool:
        others = [pool.submit(band, *edge) for edge in pairwise(edges[1:])]
        band(edges[0], edges[1])
        for other in others:
            other.result()


@compiled
def _fuse_rows(
    semantic,  # [C, h, w] float32, or uint16 bits of float16
    detail,  # [C, h, w]
    flagged,  # [h, w]
    row_lower,  # [H]
    row_weight,  # [H]
    col_lower,  # [W]
    col_weight,  # [W]
    begin,
    end,
    want_confidence,
    labels,  # [H, W], rows begin to end are written
    confidence,  # [H, W], or empty
):
    classes, height, width = semantic.shape
    cells = max(width - 1, 1)
    col_begin = _first_cols(col_lower, cells)
    # Two grid rows are held at a time, row r in slot r & 1.
    held = np.full(2, -1)
    logits = np.empty((2, classes, width), np.float32)
    peak = np.empty((2, width), np.float32)
    winner = np.empty((2, width), np.int32)
    certainty = np.empty((2, width), np.float32)
    probabilities = np.empty((2, width, classes), np.float32)
    ready = np.zeros((2, width), np.bool_)
    wanted = np.empty(width, np.uint32)
    powers = np.empty((classes, width), np.float32)
    total = np.empty(width, np.float32)
    boundary = np.empty(cells, np.uint32)
    corners = np.empty((4, classes), np.float32)
    edge, slope = np.empty(classes, np.float32), np.empty(classes, np.float32)
    candidates = np.empty(classes, np.uint8)
    base, step = np.empty(width, np.float32), np.empty(width, np.float32)

    first = begin
    while first < end:
        upper = row_lower[first]
        lower = min(upper + 1, height - 1)
        last = first + 1
        while last < end and row_lower[last] == upper:
            last += 1
        for row in range(upper, lower + 1):
            slot = row & 1
            if held[slot] != row:
                held[slot] = row
                ready[slot] = False
                _load_row(semantic, detail, flagged, row, wanted, logits[slot], peak[slot], winner[slot])
                if want_confidence:
                    _largest_probability(logits[slot], peak[slot], certainty[slot])
        up, down = upper & 1, lower & 1

        # Right in cells whose corners agree; the others are written again below.
        _expand(winner[up], col_lower, labels[first])
        for y in range(first + 1, last):
            labels[y] = labels[first]
        if want_confidence:
            for y in range(first, last):
                _interpolate_row(
                    certainty[up], certainty[down], row_weight[y], col_lower, col_weight, base, step, confidence[y]
                )

        count = _boundary_cells(winner[up], winner[down], col_begin, boundary)
        for slot in (up, down):
            _softmax_at_cells(
                boundary[:count], logits[slot], peak[slot], ready[slot], wanted, powers, total, probabilities[slot]
            )
        for k in range(count):
            left = boundary[k]
            right = min(left + 1, width - 1)
            found = _candidates(probabilities, winner, up, down, left, right, candidates, corners)
            for y in range(first, last):
                for n in range(found):
                    edge[n] = _lerp(corners[0, n], corners[2, n], row_weight[y])
                    slope[n] = _lerp(corners[1, n], corners[3, n], row_weight[y]) - edge[n]
                for x in range(col_begin[left], col_begin[left + 1]):
                    label, largest = candidates[0], edge[0] + slope[0] * col_weight[x]
                    for n in range(1, found):
                        value = edge[n] + slope[n] * col_weight[x]
                        label = candidates[n] if value > largest else label
                        largest = value if value > largest else largest
                    labels[y, x] = label
                    if want_confidence:
                        confidence[y, x] = largest
        first = last


@compiled
def _upsample_rows(values, row_lower, row_weight, col_lower, col_weight, begin, end, output):
    height, width = values.shape
    base, step = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(begin, end):
        upper = row_lower[y]
        lower = min(upper + 1, height - 1)
        _interpolate_row(values[upper], values[lower], row_weight[y], col_lower, col_weight, base, step, output[y])


@compiled
def _first_cols(col_lower, cells):
    """Return the first output column of each cell, and one past the last of all."""
    first = np.empty(cells + 1, np.int64)
    x = 0
    for cell in range(cells):
        while x < len(col_lower) and col_lower[x] < cell:
            x += 1
        first[cell] = x
    first[cells] = len(col_lower)
    return first


@compiled
def _load_row(semantic, detail, flagged, row, flagged_at, logits, peak, winner):
    """Read one grid row of the selected logits, and find their largest and its lowest class."""
    classes, _, width = semantic.shape
    count = 0
    for x in range(width):
        if flagged[row, x]:
            flagged_at[count] = x
            count += 1
    for c in range(classes):
        for x in range(width):
            logits[c, x] = _float32(semantic[c, row, x])
        for k in range(count):
            logits[c, flagged_at[k]] = _float32(detail[c, row, flagged_at[k]])
        if c == 0:
            for x in range(width):
                peak[x] = logits[0, x]
                winner[x] = 0
        else:
            for x in range(width):
                value, largest = logits[c, x], peak[x]
                winner[x] = c if value > largest else winner[x]
                peak[x] = value if value > largest else largest


@compiled
def _largest_probability(logits, peak, certainty):
    classes, width = logits.shape
    certainty[:] = ZERO
    for c in range(classes):
        for x in range(width):
            certainty[x] += _exp(logits[c, x] - peak[x])
    for x in range(width):
        certainty[x] = ONE / certainty[x]


@compiled
def _boundary_cells(winner_up, winner_down, col_begin, boundary):
    """List the cells that hold output pixels and whose corners disagree."""
    count = 0
    width = len(winner_up)
    for left in range(len(boundary)):
        right = min(left + 1, width - 1)
        label = winner_up[left]
        differs = (winner_up[right] != label) | (winner_down[left] != label) | (winner_down[right] != label)
        if differs and col_begin[left] < col_begin[left + 1]:
            boundary[count] = left
            count += 1
    return count


@compiled
def _softmax_at_cells(boundary, logits, peak, ready, wanted, powers, total, probabilities):
    """Make the probabilities of one grid row at the corners of these cells, where they are not ready."""
    classes, width = logits.shape
    count = 0
    for left in boundary:
        for x in range(left, min(left + 2, width)):
            if not ready[x]:
                ready[x] = True
                wanted[count] = x
                count += 1
    total[:count] = ZERO
    for c in range(classes):
        for k in range(count):
            powers[c, k] = logits[c, wanted[k]] - peak[wanted[k]]
        for k in range(count):
            powers[c, k] = _exp(powers[c, k])
            total[k] += powers[c, k]
    for k in range(count):
        scale = ONE / total[k]
        for c in range(classes):
            probabilities[wanted[k], c] = powers[c, k] * scale


@compiled
def _candidates(probabilities, winner, up, down, left, right, candidates, corners):
    """List the classes that can win in a cell, ascending, with their probabilities at its corners.

    The largest probability is nowhere below the mean of those of the corners' winners, so a class that is below this
    mean at all four corners is below the largest everywhere.
    """
    a, b, c, d = winner[up, left], winner[up, right], winner[down, left], winner[down, right]
    p, q = probabilities[up, left], probabilities[up, right]
    r, s = probabilities[down, left], probabilities[down, right]
    # Summed in pairs, so that rounding cannot lift a mean above its largest term.
    p_mean = QUARTER * ((p[a] + p[b]) + (p[c] + p[d]))
    q_mean = QUARTER * ((q[a] + q[b]) + (q[c] + q[d]))
    r_mean = QUARTER * ((r[a] + r[b]) + (r[c] + r[d]))
    s_mean = QUARTER * ((s[a] + s[b]) + (s[c] + s[d]))
    found = 0
    for k in range(len(p)):
        candidates[found] = k
        found += (p[k] >= p_mean) | (q[k] >= q_mean) | (r[k] >= r_mean) | (s[k] >= s_mean)
    for n in range(found):
        k = candidates[n]
        corners[0, n], corners[1, n], corners[2, n], corners[3, n] = p[k], q[k], r[k], s[k]
    return found


@compiled
def _expand(grid_row, col_lower, output):
    for x in range(len(col_lower)):
        output[x] = grid_row[col_lower[x]]


@compiled
def _interpolate_row(upper, lower, weight, col_lower, col_weight, base, step, output):
    """Interpolate two grid rows at one output row; `base` and `step` are scratch of a grid row each."""
    last = len(upper) - 1
    for x in range(len(upper)):
        base[x] = _lerp(upper[x], lower[x], weight)
    for x in range(last):
        step[x] = base[x + 1] - base[x]
    step[last] = ZERO
    for x in range(len(col_lower)):
        output[x] = base[col_lower[x]] + step[col_lower[x]] * col_weight[x]


@compiled
def _lerp(a, b, weight):
    return a + (b - a) * weight


# Cephes expf: exp(x) = 2**n * exp(r), |r| <= log(2) / 2, with log(2) split in two; relative error below 2e-7.
LOWEST, LOG2_E = np.float32(-87), np.float32(1.44269504088896341)
LOG_2_HIGH, LOG_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
P0, P1, P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
P3, P4, P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


@compiled
def _exp(x):
    """Return exp(x) for x <= 0, and 1e-38 below -87; unlike a call of libm this becomes vector instructions."""
    x = x if x > LOWEST else LOWEST
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LOG_2_HIGH - n * LOG_2_LOW
    power = (((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5) * r * r + r + ONE
    return power * np.int32((np.int32(n) + 127) << 23).view(np.float32)


def _float32(value: Any) -> Any:
    """Return a logit as float32: one that is float32, or the bits of a float16."""
    raise NotImplementedError("for compiled code only")


@overload(_float32, inline="always")
def _float32_overload(value):
    if value == types.float32:
        return lambda value: value
    return lambda value: _float16_value(value)


# A factor of 2**112 takes the exponent's bias from float16's 15 to float32's 127, in subnormal numbers too.
REBIAS = np.float32(2.0**112)
LARGEST_FLOAT16, INFINITY = np.float32(65504), np.float32(np.inf)


@compiled
def _float16_value(bits):
    size = np.int32((np.int32(bits) & 0x7FFF) << 13).view(np.float32) * REBIAS
    size = INFINITY if size > LARGEST_FLOAT16 else size
    return -size if bits & 0x8000 else size
