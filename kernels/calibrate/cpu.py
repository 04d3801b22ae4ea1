"""Calibration on the CPU, in one pass and float64 but for the search, which compares many float32 values at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.compiled import compiled, writable

DTYPES = ("float32", "float16")
_VALUES = 512  # of a block, which stays in the first-level cache


class Segments(NamedTuple):
    """The lines between knots, as the kernel takes them; the first one lies below all knots, the last one above.

    Attributes:
        begins: float32 [n], the least float32 that is not below each knot: a float32 is below both or neither.
        logits: float64 [n + 1], where each line begins.
        probabilities: float64 [n + 1], error probability there.
        slopes: float64 [n + 1].
    """

    begins: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    slopes: npt.NDArray[np.float64]

    @classmethod
    def of(cls, logits: Sequence[float], probabilities: Sequence[float]) -> Segments:
        """Between these knots, whose logits increase; there is at least one."""
        x, y = np.asarray(logits, np.float64), np.asarray(probabilities, np.float64)
        with np.errstate(over="ignore"):
            nearest = x.astype(np.float32)
            slopes = np.minimum(np.diff(y) / np.diff(x), np.finfo(np.float64).max)
        begins = np.where(nearest < x, np.nextafter(nearest, np.float32(np.inf)), nearest)
        return cls(begins, np.append(x[0], x), np.append(y[0], y), np.concatenate([[0.0], slopes, [0.0]]))


def calibrate(error_logit: npt.NDArray[np.floating], segments: Segments) -> npt.NDArray[np.float32]:
    """Error probability, `float32` of the shape of the error logits; `calibrate_reference` is the definition.

    Args:
        error_logit: Of any shape, float32 or float16.
        segments: Of the map.

    Raises:
        ValueError: Another dtype.
    """
    if error_logit.dtype not in DTYPES:
        raise ValueError(f"error_logit must be {' or '.join(DTYPES)}, got {error_logit.dtype}")
    values = writable(np.ascontiguousarray(error_logit, np.float32).reshape(-1))
    probability = np.empty(error_logit.shape, np.float32)
    _calibrate(values, *segments, probability.reshape(-1))
    return probability


@compiled
def _calibrate(values, begins, logits, probabilities, slopes, probability):
    found = np.empty(_VALUES, np.int32)
    least, most = logits[0], logits[-1]
    for first in range(0, len(values), _VALUES):
        # As slices, whose indices are never negative, so that the search is vectorised.
        block, result = values[first : first + _VALUES], probability[first : first + _VALUES]
        segment = found[: len(block)]
        segment[:] = 0
        for knot in range(len(begins)):
            begin = begins[knot]
            for i in range(len(block)):
                segment[i] += np.int32(begin <= block[i])
        for i in range(len(block)):
            at, value = np.uint32(segment[i]), np.float64(block[i])
            # Infinity times a slope of zero would be NaN.
            value = least if value < least else most if value > most else value
            result[i] = probabilities[at] + slopes[at] * (value - logits[at])
