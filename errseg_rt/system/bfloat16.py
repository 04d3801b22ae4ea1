"""bfloat16 in NumPy, which has no such type: the upper half of a float32, as uint16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def to_bfloat16(values: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """Round to the nearest, ties to even; NaN stays NaN."""
    values = np.ascontiguousarray(values, np.float32)
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The value, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
