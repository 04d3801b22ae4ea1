"""What preprocessing asks of its operands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from errseg_rt.kernels.arrays import check_array

REDUCTIONS = ("area", "bilinear")
"""How a frame is made smaller."""


def check(
    frame: Any,
    content_size: Sequence[int],
    input_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    color: str,
    reduce: str,
    dtype: str,
    dtypes: Sequence[str],
) -> None:
    """Raise a ValueError unless these are operands of `errseg_rt.kernels.preprocess`."""
    check_array("frame", frame, ("uint8",), ("H", "W", 3), contiguous=False)
    if 0 in frame.shape:
        raise ValueError(f"frame must have pixels, got {list(frame.shape)}")
    if color not in ("bgr", "rgb"):
        raise ValueError(f"color must be 'bgr' or 'rgb', got {color!r}")
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be {' or '.join(REDUCTIONS)}, got {reduce!r}")
    if dtype not in dtypes:
        raise ValueError(f"dtype must be {' or '.join(dtypes)}, got {dtype!r}")
    if any(not 1 <= content <= padded for content, padded in zip(content_size, input_size, strict=True)):
        raise ValueError(f"the content must fit in the input: {content_size = }, {input_size = }")
    if len(mean) != 3 or not all(map(math.isfinite, mean)):
        raise ValueError(f"mean must be three finite numbers, got {mean}")
    if len(std) != 3 or not all(math.isfinite(deviation) and deviation > 0 for deviation in std):
        raise ValueError(f"std must be three positive numbers, got {std}")
