"""The search for faults on a GPU, as a launch for each branch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from errseg_rt.kernels.launch import Launch, Launcher, Wide, cdiv

VALUES, WARPS = 4096, 8


def enqueue_faults(
    launcher: Launcher,
    faults: Any,  # [n] int32
    branch: int,
    values: Any,
    count: Any | None = None,  # [1] int32
) -> None:
    """Set `faults[branch]` to 1 where a value is NaN or infinite; `errseg_rt.kernels.finite.reference` defines it.

    Args:
        launcher: Of the GPU that holds the arrays.
        faults: Zeros at first.
        branch: Which one this is.
        values: float32, float16 or bfloat16, of any shape and without gaps; with a count, contiguous.
        count: How many rows of the values are defined, from the first; None: all.

    Raises:
        ValueError: The values have gaps, or there is no such branch.
    """
    shape = [int(length) for length in values.shape]
    if not (values.is_contiguous() if count is not None else has_no_gaps(shape, values.stride())):
        raise ValueError(f"values must have no gaps, got strides {tuple(values.stride())} at shape {shape}; copy them")
    if not 0 <= branch < faults.shape[0]:
        raise ValueError(f"branch must be below {faults.shape[0]}, got {branch}")
    size = math.prod(shape)
    if not size:
        return
    launcher.launch(
        Launch(
            "finite.mark_faults",
            (cdiv(size, VALUES),),
            # A count that is not there is not read.
            (
                values,
                Wide(size),
                faults if count is None else count,
                1 if count is None else size // shape[0],
                faults,
                branch,
            ),
            {"HAS_COUNT": count is not None, "VALUES": VALUES},
            WARPS,
        )
    )


def has_no_gaps(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether an array's values lie one behind the other, in whatever order: channels may come last."""
    size = 1
    for stride, length in sorted((stride, length) for length, stride in zip(shape, strides, strict=True) if length > 1):
        if stride != size:
            return False
        size *= length
    return True
