"""The kernel of calibration for GPUs, in float32."""

from __future__ import annotations

import triton
import triton.language as tl


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
    """Interpolate between the last knot that is not above a pixel's error logit, and the next one."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    in_grid = pixel < pixels
    value = tl.load(error_logit + pixel, mask=in_grid, other=0).to(tl.float32)
    lower = tl.zeros_like(pixel)
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
    tl.store(probability + pixel, tl.where(value == value, result, value), mask=in_grid)
