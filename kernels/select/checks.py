"""What selection asks of its operands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from errseg_rt.kernels.arrays import check_array
from errseg_rt.kernels.select.layers import Layers


def check(
    error_logit: Any,
    threshold: float,
    seen: tuple[int, int] | None,
    layers: Layers,
    budget: int | None,
    floats: Sequence[str],
) -> None:
    """Raise a ValueError unless these are operands of selection as `errseg_rt.kernels.select` describes them."""
    check_array("error_logit", error_logit, floats, ("h", "w"))
    if 0 in error_logit.shape:
        raise ValueError(f"error_logit must have pixels, got {list(error_logit.shape)}")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
    if seen is not None and not (
        len(seen) == 2
        and all(_is_count(part) and 1 <= part <= whole for part, whole in zip(seen, error_logit.shape, strict=True))
    ):
        raise ValueError(f"seen must be rows and columns within {list(error_logit.shape)}, got {seen}")
    if len(layers.work) != 3 or not all(map(_is_count, layers.work)):
        raise ValueError(f"layers' work must be three counts of multiply-adds, got {layers.work}")
    if len(layers.kernels) != 3 or not set(layers.kernels) <= {1, 3}:
        raise ValueError(f"layers' kernels must be three sides of 3 or 1, got {layers.kernels}")
    if budget is not None and not _is_count(budget):
        raise ValueError(f"budget must be a count of multiply-adds, got {budget!r}")


def check_finite(error_logit: Any) -> None:
    """Raise a ValueError where an error logit of a NumPy array is NaN or infinite."""
    if not np.isfinite(error_logit).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(error_logit))[0])
        raise ValueError(f"error_logit must be finite, got {error_logit[at]} at {at}")


def level(threshold: float) -> float:
    """The largest float32 that is not above logit(threshold): a float32 exceeds both or neither."""
    logit = math.log(threshold) - math.log1p(-threshold)
    nearest = np.float32(logit)
    return float(nearest if float(nearest) <= logit else np.nextafter(nearest, np.float32(-np.inf)))


def _is_count(number: object) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and bool(number >= 0)
