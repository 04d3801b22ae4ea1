"""The search for values that are not finite, on a GPU, as a launch for each branch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from errseg_rt.kernels.launch import Launch, Launcher, Wide, cdiv

VALUES, WARPS = 4096, 8


def enqueue_finite(
    launcher: Launcher,
    branches: Sequence[Any],
    counts: Sequence[Any | None],  # [1] int32 each
) -> Any:  # [n] int32
    """1 for each branch in which a value is NaN or infinite, else 0; `errseg_rt.kernels.finite.reference` defines it.

    Args:
        launcher: Of the GPU that holds the arrays.
        branches: float32, float16 or bfloat16, of any shape and without gaps; with a count, contiguous.
        counts: How many rows of each, from the first, are defined; None: all.

    Raises:
        ValueError: Values have gaps.
    """
    faults = launcher.zeros((len(branches),), "int32")
    for branch, (values, count) in enumerate(zip(branches, counts, strict=True)):
        _enqueue_one(launcher, faults, branch, values, count)
    return faults


def _enqueue_one(launcher: Launcher, faults: Any, branch: int, values: Any, count: Any | None) -> None:
    shape = [int(length) for length in values.shape]
    if not (values.is_contiguous() if count is not None else has_no_gaps(shape, values.stride())):
        raise ValueError(f"values must have no gaps, got strides {tuple(values.stride())} at shape {shape}; copy them")
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
