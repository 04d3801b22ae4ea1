"""The kernels of calibration for GPUs, in float32."""

from __future__ import annotations

import triton
import triton.language as tl

# Below every logit, and no infinity, of which a difference would be NaN.
LOWEST = tl.constexpr(-3.0e38)


@triton.jit(do_not_specialize=["pixels", "knot_count", "step"])
def calibrate(
    error_logit,  # [pixels]
    pixels,
    knots,  # [2, knot_count] float32: logits, never decreasing, and probabilities
    knot_count,
    step,  # of the search, the first one: the largest power of two below knot_count; 0 for one knot
    probability,  # [pixels] float32, written
    PIXELS: tl.constexpr,  # of a tile
):
    """Interpolate at every pixel's error logit."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    in_grid = pixel < pixels
    value = tl.load(error_logit + pixel, mask=in_grid, other=0).to(tl.float32)
    tl.store(probability + pixel, interpolate(value, knots, knot_count, step), mask=in_grid)


@triton.jit(do_not_specialize=["pixels", "knot_count", "detail_rows", "detail_knot_count", "above", "step"])
def calibrate_final(
    error_logit,  # [pixels]
    pixels,
    knots,  # [2, knot_count] float32, as above
    knot_count,
    detail,  # [CLASSES, pixels], or [detail_rows, CLASSES]
    where,  # [pixels], bool for a map, int32 for rows
    detail_rows,
    detail_knots,  # [2, detail_knot_count] float32, likewise
    detail_knot_count,
    above,  # float32, the error logit that pixels exceed for which these were made
    step,  # of the search, the first one: that of the longer map
    probability,  # [pixels] float32, written
    CLASSES: tl.constexpr,
    AS_ROWS: tl.constexpr,
    PIXELS: tl.constexpr,  # of a tile
):
    """The same, but by the detail branch's doubt and the map of that where it gave the label, and the map is for it."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    in_grid = pixel < pixels
    value = tl.load(error_logit + pixel, mask=in_grid, other=0).to(tl.float32)
    if AS_ROWS:
        row = tl.load(where + pixel, mask=in_grid, other=-1)
        is_detail = (row >= 0) & (row < detail_rows)
        at, class_step = detail + row.to(tl.int64) * CLASSES, 1
    else:
        is_detail = tl.load(where + pixel, mask=in_grid, other=0).to(tl.int1)
        at, class_step = detail + pixel, pixels
    is_detail = is_detail & (value > above)
    peak, others = tl.full((PIXELS,), LOWEST, tl.float32), tl.zeros((PIXELS,), tl.float32)
    if tl.max(is_detail.to(tl.int32), axis=0) > 0:  # a tile in which nothing was labelled again looks at no class
        for _ in tl.range(0, CLASSES, loop_unroll_factor=6):
            logit = tl.load(at, mask=is_detail, other=0).to(tl.float32)
            at += class_step
            # The sum of powers over the peak's, without the peak's own: nothing is lost where it is small.
            power = tl.exp(-tl.abs(logit - peak))
            others = tl.where(logit > peak, (others + 1) * power, others + power)
            peak = tl.maximum(logit, peak)
    value = tl.where(is_detail, tl.log(others), value)
    # Each pixel searches its own map.
    of_pixel = tl.where(is_detail, detail_knots + tl.zeros_like(pixel), knots + tl.zeros_like(pixel))
    count = tl.where(is_detail, detail_knot_count, knot_count)
    tl.store(probability + pixel, interpolate(value, of_pixel, count, step), mask=in_grid)


@triton.jit
def interpolate(value, knots, knot_count, step):
    """Interpolate between the last knot not above a value, and the next one; each pixel may have knots of its own."""
    lower = tl.zeros_like(value).to(tl.int32)
    while step > 0:
        middle = lower + step
        is_knot = middle < knot_count
        begin = tl.load(knots + middle, mask=is_knot, other=float("inf"))
        lower = tl.where(is_knot & (begin <= value), middle, lower)
        step = step // 2
    upper = tl.minimum(lower + 1, knot_count - 1)
    left, right = tl.load(knots + lower), tl.load(knots + upper)
    low, high = tl.load(knots + knot_count + lower), tl.load(knots + knot_count + upper)
    # Below the first knot, at the last one and above, the map is constant.
    is_between = (left <= value) & (left < right)
    share = tl.where(is_between, value - left, 0) / tl.where(is_between, right - left, 1)
    result = tl.minimum(low + (high - low) * share, high)  # which rounding could exceed
    return tl.where(value == value, result, value)
