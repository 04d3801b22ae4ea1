"""Calibration on the CPU, in one pass and float64 but for the search, which compares many float32 values at once.

The doubt of the detail branch is computed in float32, class by class over blocks of pixels, so that its exponentials
and logarithms become vector instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.arrays import check_array
from errseg_rt.kernels.compiled import compiled, inner, writable
from errseg_rt.kernels.fuse_labels.cpu import laid_out
from errseg_rt.kernels.fuse_labels.loops import HALF, LOG_2_HIGH, LOG_2_LOW, ONE, ZERO, exp
from errseg_rt.kernels.fuse_labels.reference import Flagged, Logits

DTYPES = ("float32", "float16")
_VALUES = 512  # of a block, which stays in the first-level cache
_SCANNED = 4096  # pixels that are looked through for those that have detail logits


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


def calibrate(
    error_logit: npt.NDArray[np.floating],
    segments: Segments,
    detail: Logits | None = None,  # [C, h, w] or [n, C]
    where: Flagged | None = None,  # [h, w]
    detail_segments: Segments | None = None,
    above: float = -np.inf,
) -> npt.NDArray[np.float32]:
    """Error probability, `float32` of the shape of the error logits; `calibrate_reference` is the definition.

    With detail logits it is that of the final label, see `calibrate_final_reference`.

    Args:
        error_logit: Of any shape, `[h, w]` with detail logits; float32 or float16.
        segments: Of the map.
        detail: Detail logits, of every pixel or of some, as `fuse_labels` takes them; float32 or float16.
        where: Which pixels take theirs from `detail`, likewise; given with it.
        detail_segments: Of the map of the detail branch's doubt, given with it.
        above: The error logit that pixels exceed for which that map was made; others have the first one.

    Raises:
        ValueError: Another dtype or shape, or only some of the last three.
    """
    if error_logit.dtype not in DTYPES:
        raise ValueError(f"error_logit must be {' or '.join(DTYPES)}, got {error_logit.dtype}")
    _check_detail(error_logit, detail, where, detail_segments)
    values = writable(np.ascontiguousarray(error_logit, np.float32).reshape(-1))
    probability = np.empty(error_logit.shape, np.float32)
    _calibrate(values, *segments, probability.reshape(-1))
    if detail is not None and where is not None and detail_segments is not None:
        numbers, steps, slots = laid_out(detail, where)
        classes = len(detail) if detail.ndim == 3 else detail.shape[1]
        _replace(numbers, *steps, classes, slots, values, np.float32(above), *detail_segments, probability.reshape(-1))
    return probability


def _check_detail(error_logit: Any, detail: Any, where: Any, detail_segments: Any) -> None:
    """Raise a ValueError unless detail logits, where they count and their map fit an error map, or are all None."""
    given = {"detail": detail, "where": where, "detail_segments": detail_segments}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if missing:
        raise ValueError(f"{', '.join(given)} go together: {' and '.join(missing)} is None")
    shape = tuple(int(length) for length in error_logit.shape)
    if len(shape) != 2:
        raise ValueError(f"error_logit must be [h, w] beside detail logits, got {list(shape)}")
    as_rows = len(detail.shape) == 2
    check_array("detail", detail, DTYPES, ("n", "C") if as_rows else ("C", *shape))
    check_array("where", where, ("int32",) if as_rows else ("bool",), shape)
    classes = detail.shape[1 if as_rows else 0]
    if not 2 <= classes <= 255:
        raise ValueError(f"detail must have 2 to 255 classes, got {classes}")
    if as_rows and where.size and where.max() >= len(detail):
        raise ValueError(f"where must hold rows of detail, below {len(detail)}, got {where.max()}")


@compiled
def _calibrate(values, begins, logits, probabilities, slopes, probability):
    found = np.empty(_VALUES, np.int32)
    for first in range(0, len(values), _VALUES):
        # As slices, whose indices are never negative, so that the search is vectorised.
        block, result = values[first : first + _VALUES], probability[first : first + _VALUES]
        _interpolate(block, begins, logits, probabilities, slopes, found[: len(block)], result)


@inner
def _interpolate(block, begins, logits, probabilities, slopes, segment, result):
    """One block of values; `segment` is scratch."""
    least, most = logits[0], logits[-1]
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


@compiled
def _replace(
    detail,  # [...] float32; class c of the pixel in slot s is at s * pixel_step + c * class_step
    pixel_step,
    class_step,
    classes,
    slot,  # [h * w] int32, negative where nothing is replaced
    values,  # [h * w] float32, error logits
    above,  # nothing is replaced either where they do not exceed this
    begins,
    logits,
    probabilities,
    slopes,
    probability,  # [h * w]
):
    """Write the probabilities of the pixels that have a slot, and an error logit above a limit."""
    pixels, starts = np.empty(_SCANNED, np.uint32), np.empty(_VALUES, np.uint64)
    found, lines = np.empty(_VALUES, np.int32), np.empty((classes, _VALUES), np.float32)
    scratch = np.empty((3, _VALUES), np.float32)
    for begin in range(0, len(slot), _SCANNED):
        scanned, limited = slot[begin : begin + _SCANNED], values[begin : begin + _SCANNED]
        total = np.uint64(0)
        for i in range(len(scanned)):
            pixels[total] = begin + i
            total += np.uint64((scanned[i] >= 0) & (limited[i] > above))
        for first in range(0, int(total), _VALUES):
            block = pixels[first : min(first + _VALUES, int(total))]
            count = len(block)
            for i in range(count):
                starts[i] = np.uint64(slot[block[i]]) * np.uint64(pixel_step)
            for c in range(classes):
                part, line = detail[c * class_step :], lines[c, :count]
                for i in range(count):
                    line[i] = part[starts[i]]
            others, result = scratch[0, :count], scratch[1, :count]
            _doubt(lines, scratch[2, :count], others)
            _interpolate(others, begins, logits, probabilities, slopes, found[:count], result)
            for i in range(count):
                probability[block[i]] = result[i]


@inner
def _doubt(lines, peak, others):
    """The logit of 1 - max softmax of some pixels, `[n]`, of logits `[C, at least n]`; `peak` is scratch.

    `others` is the sum of powers over the peak's, without the peak's own, so that nothing is lost where it is small;
    a doubt below -87 is that.
    """
    for i in range(len(peak)):
        value = lines[0, i]
        peak[i] = LOWEST if value < LOWEST else value
        others[i] = ZERO
    for c in range(1, len(lines)):
        line = lines[c, : len(peak)]
        for i in range(len(peak)):
            value, largest = line[i], peak[i]
            gap = -abs(value - largest)
            power = exp(gap) if gap == gap else gap  # a NaN stays one
            is_larger = value > largest
            others[i] = (others[i] + ONE) * power if is_larger else others[i] + power
            peak[i] = value if is_larger else largest
    for i in range(len(others)):
        others[i] = log(others[i])


# Below every logit, and no infinity, of which a difference would be NaN.
LOWEST, ROOT_HALF = np.float32(-3e38), np.float32(0.70710678118654752)
# Cephes logf: log(2**n m) for m in sqrt(1/2)..sqrt(2), with log(2) split in two; error below 2e-7 of the result.
L0, L1, L2 = np.float32(7.0376836292e-2), np.float32(-1.1514610310e-1), np.float32(1.1676998740e-1)
L3, L4, L5 = np.float32(-1.2420140846e-1), np.float32(1.4249322787e-1), np.float32(-1.6668057665e-1)
L6, L7, L8 = np.float32(2.0000714765e-1), np.float32(-2.4999993993e-1), np.float32(3.3333331174e-1)


@inner
def log(x):
    """Logarithm of a positive x that is not subnormal; a NaN stays one."""
    bits = np.float32(x).view(np.int32)
    n, m = (bits >> 23) - 126, np.int32((bits & 0x7FFFFF) | 0x3F000000).view(np.float32)  # m in 1/2..1
    is_low = m < ROOT_HALF
    power = np.float32(n - 1 if is_low else n)
    r = m + m - ONE if is_low else m - ONE
    tail = ((((((((L0 * r + L1) * r + L2) * r + L3) * r + L4) * r + L5) * r + L6) * r + L7) * r + L8) * r * r * r
    result = r + (tail + power * LOG_2_LOW - HALF * r * r) + power * LOG_2_HIGH
    return result if x == x else x
