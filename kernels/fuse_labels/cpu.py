"""Fusion on the CPU: only cells on a class boundary need arithmetic.

A cell is the square between four neighbouring grid pixels. Where its corners share an argmax, every pixel in it has
that argmax too, since a convex combination keeps the order; the probabilities themselves are not needed. What is left,
a few cells in a hundred, gets a softmax at its corners and is interpolated in the few classes that can win in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.compiled import share, writable
from errseg_rt.kernels.fuse_labels.loops import certainty_rows, fuse_rows, upsample_rows, widen
from errseg_rt.kernels.fuse_labels.operands import FusedLabels, check_map, check_operands, check_values
from errseg_rt.kernels.fuse_labels.reference import FLOATS, Flagged, Logits
from errseg_rt.kernels.geometry import Geometry

# Logits below which another thread costs more than it brings, about 0.7 ms on one core.
LOGITS_OF_A_THREAD = 150_000


def fuse_labels(
    semantic: Logits,  # [C, h, w]
    detail: Logits | None,  # [C, h, w] or [n, C]
    flagged: Flagged | None,  # [h, w]
    geometry: Geometry,
    *,
    error: Logits | None = None,  # [h, w]
    confidence: bool = False,
    threads: int = 1,
) -> FusedLabels[npt.NDArray[Any]]:
    """Label every pixel of the frame, in float32; `errseg_rt.kernels.fuse_labels` says it in full."""
    check_operands(semantic, detail, flagged, geometry, error, FLOATS)
    check_values(detail, flagged, error)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    threads = min(threads, 1 + semantic.size // LOGITS_OF_A_THREAD)
    height, width = geometry.output_size
    operands = Operands.of(semantic, detail, flagged, threads)
    axes = _Axes.of(geometry)
    labels = np.empty((height, width), np.uint8)
    largest = np.empty((height, width) if confidence else (0, 0), np.float32)
    if confidence:
        certainty = np.empty(geometry.grid_size, np.float32)
        share(threads, geometry.grid_size[0], lambda begin, end: _certainty(operands, begin, end, certainty))
        share(threads, height, lambda begin, end: _upsample(certainty, axes, begin, end, largest))
    share(threads, height, lambda begin, end: _fuse(operands, axes, begin, end, labels, largest))
    error_map = None if error is None else upsample(error, geometry, threads)
    return FusedLabels(labels, largest if confidence else None, error_map)


def upsample(grid_map: Logits, geometry: Geometry, threads: int = 1) -> npt.NDArray[np.float32]:
    """Interpolate one map bilinearly at every pixel of the frame, in float32.

    Args:
        grid_map: float32 or float16 [h, w], say the error probability.
        geometry: How the pixels of the frame lie on the grid.
        threads: How many threads share the rows of the frame.

    Returns:
        float32 [H, W].

    Raises:
        ValueError: Another rank, shape, dtype or stride, or `threads` below 1.
    """
    check_map("grid_map", grid_map, geometry, FLOATS)
    values = _float32(grid_map, threads)
    axes = _Axes.of(geometry)
    output = np.empty(geometry.output_size, np.float32)
    share(threads, len(output), lambda begin, end: _upsample(values, axes, begin, end, output))
    return output


@dataclass(frozen=True)
class Operands:
    """Logits as the loops take them.

    Attributes:
        width: Of the grid.
        semantic: float32 [C, h * w].
        detail: float32 [...]; class c of the pixel in slot s is at `s * steps[0] + c * steps[1]`.
        steps: In `detail`, from one slot and from one class to the next.
        slot: int32 [h * w], -1 where `semantic` counts.
    """

    width: int
    semantic: npt.NDArray[np.float32]
    detail: npt.NDArray[np.float32]
    steps: tuple[int, int]
    slot: npt.NDArray[np.int32]

    @classmethod
    def of(cls, semantic: Logits, detail: Logits | None, flagged: Flagged | None, threads: int) -> Operands:
        """Of operands as `fuse_labels` takes them, which were checked."""
        classes, height, width = semantic.shape
        maps = _float32(semantic, threads).reshape(classes, -1)
        if detail is None or flagged is None:
            return cls(width, maps, np.empty(0, np.float32), (0, 0), np.full(height * width, -1, np.int32))
        return cls(width, maps, *laid_out(detail, flagged, threads))

    def all(self) -> tuple[Any, ...]:
        """In the order in which loops take them."""
        return self.semantic, self.detail, *self.steps, self.slot


@dataclass(frozen=True)
class _Axes:
    """A geometry as the loops take it.

    Attributes:
        row_lower: [H].
        row_weight: float32 [H].
        col_lower: [W]; unsigned, since numba tests signed indices for wrap-around, and gathers by them become no vector
            code.
        col_weight: float32 [W].
        col_first: int64 [cells + 1], the first output column of each cell, and W.
    """

    row_lower: npt.NDArray[np.int32]
    row_weight: npt.NDArray[np.float32]
    col_lower: npt.NDArray[np.uint32]
    col_weight: npt.NDArray[np.float32]
    col_first: npt.NDArray[np.int64]

    @classmethod
    def of(cls, geometry: Geometry) -> _Axes:
        rows, cols = geometry.rows(), geometry.cols()
        col_first = np.searchsorted(cols.lower, np.arange(max(geometry.grid_size[1] - 1, 1) + 1))
        col_lower, weights = (
            cols.lower.astype(np.uint32),
            (rows.weight.astype(np.float32), cols.weight.astype(np.float32)),
        )
        return cls(rows.lower, weights[0], col_lower, weights[1], col_first)

    @property
    def taps(self) -> tuple[npt.NDArray[Any], ...]:
        return self.row_lower, self.row_weight, self.col_lower, self.col_weight


def _fuse(
    operands: Operands,
    axes: _Axes,
    begin: int,
    end: int,
    labels: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.float32],
) -> None:
    classes, width = len(operands.semantic), operands.width
    fuse_rows(
        *operands.all(),
        *axes.taps,
        axes.col_first,
        begin,
        end,
        np.empty((2, classes, width), np.float32),
        np.empty((2, width), np.int32),
        np.empty((2, width), np.bool_),
        np.empty((2, width, classes), np.float32),
        np.empty(width, np.float32),
        np.empty((2, width), np.int64),
        np.empty(width, np.uint32),
        np.empty(width, np.uint32),
        np.empty((classes, width), np.float32),
        np.empty(classes, np.uint8),
        np.empty((2, classes), np.float32),
        np.empty(labels.shape[1], np.uint8),
        labels,
        confidence,
    )


def _certainty(operands: Operands, begin: int, end: int, certainty: npt.NDArray[np.float32]) -> None:
    classes, width = len(operands.semantic), operands.width
    rows = (np.empty(shape, dtype) for shape, dtype in (((classes, width), np.float32), (width, np.int32)))
    certainty_rows(
        *operands.all(), begin, end, *rows, np.empty(width, np.float32), np.empty((2, width), np.int64), certainty
    )


def _upsample(
    values: npt.NDArray[np.float32], axes: _Axes, begin: int, end: int, output: npt.NDArray[np.float32]
) -> None:
    upsample_rows(values, *axes.taps, begin, end, np.empty(values.shape[1], np.float32), output)


def laid_out(
    detail: Logits, flagged: Flagged, threads: int = 1
) -> tuple[npt.NDArray[np.float32], tuple[int, int], npt.NDArray[np.int32]]:
    """Detail logits as loops take them, of a map or of rows that were checked.

    Returns:
        The logits, `float32` and flat; the steps in them from one pixel or row to the next, and from one class to the
        next; and which pixel or row each grid pixel takes, `int32 [h * w]`, negative for none.
    """
    numbers = _float32(detail, threads).ravel()
    if detail.ndim == 2:
        return numbers, (detail.shape[1], 1), writable(np.asarray(flagged, np.int32)).ravel()
    # Or with 0 keeps a pixel's number, with -1 all bits are set.
    slots = np.arange(flagged.size, dtype=np.int32) | (writable(flagged).view(np.int8).ravel() - np.int8(1))
    return numbers, (1, flagged.size), slots


def _float32(logits: Logits, threads: int) -> npt.NDArray[np.float32]:
    """The same numbers as float32; an array that is so already is not copied."""
    if logits.dtype == np.float32:
        return writable(np.asarray(logits, np.float32))
    # numba has no float16 on the CPU, and NumPy converts one number at a time.
    bits, wide = writable(logits).view(np.uint16).ravel(), np.empty(logits.shape, np.float32)
    share(threads, bits.size, lambda begin, end: widen(bits, begin, end, wide.ravel()))
    return wide
