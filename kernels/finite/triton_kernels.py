"""The kernel that looks for faults on GPUs."""

from __future__ import annotations

import triton
import triton.language as tl


# A count may be part of an array, so that its address is a multiple of no more than its size.
@triton.jit(do_not_specialize=["size", "per_row", "branch"], do_not_specialize_on_alignment=["count"])
def mark_faults(
    values,  # [size]
    size,
    count,  # int32 [1], rows that are defined; read with HAS_COUNT
    per_row,
    faults,  # [n] int32; [branch] becomes 1, or stays what it is
    branch,
    HAS_COUNT: tl.constexpr,
    VALUES: tl.constexpr,  # of a tile
):
    """Mark a branch in which a value is NaN or infinite."""
    first = tl.program_id(0).to(tl.int64) * VALUES
    end = size.to(tl.int64)
    if HAS_COUNT:
        end = tl.minimum(end, tl.load(count).to(tl.int64) * per_row)
    if first < end:
        at = first + tl.arange(0, VALUES)
        # Without a mask, a thread loads 16 bytes at a time.
        value = tl.load(values + at) if first + VALUES <= end else tl.load(values + at, mask=at < end, other=0)
        is_finite = tl.abs(value.to(tl.float32)) < float("inf")
        fault = 1 - tl.min(is_finite.to(tl.int32), axis=0)
        tl.store(faults + branch, fault, mask=fault > 0)
