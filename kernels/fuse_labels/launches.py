"""Fusion on a GPU, as a launch."""

from __future__ import annotations

from typing import Any

from errseg_rt.kernels.fuse_labels.operands import FusedLabels
from errseg_rt.kernels.geometry import Axis, Geometry
from errseg_rt.kernels.launch import Launch, Launcher, Wide, cdiv

NO_DETAIL, DETAIL_MAP, DETAIL_ROWS = 0, 1, 2
# One warp of 32 cells: the fewer cells, the more tiles whose corners all agree.
CELLS, WARPS = 32, 1
# Rows of cells that a tile spans, a power of two. With one, tiles follow one another along a row, and on into the next;
# benchmarks/gpu.py tries more.
TILE_ROWS = 1


def enqueue_fuse_labels(
    launcher: Launcher,
    semantic: Any,  # [C, h, w]
    detail: Any | None,  # [C, h, w], or [n, C]
    flagged: Any | None,  # [h, w], bool for a map, int32 for rows
    geometry: Geometry,
    *,
    error: Any | None = None,  # [h, w]
    confidence: bool = False,
) -> FusedLabels[Any]:
    """Label every pixel of the frame, in float32; `errseg_rt.kernels.fuse_labels` says it in full."""
    classes, height, width = semantic.shape
    size = geometry.output_size
    fused: FusedLabels[Any] = FusedLabels(
        launcher.empty(size, "uint8"),
        launcher.empty(size, "float32") if confidence else None,
        None if error is None else launcher.empty(size, "float32"),
    )
    position = position_type(geometry)
    kind = NO_DETAIL if detail is None else DETAIL_ROWS if len(detail.shape) == 2 else DETAIL_MAP
    cell_rows, cell_cols = (last - first + 1 for first, last in (axis.cells() for axis in geometry.axes()))
    # An operand that is not there is neither read nor written.
    operands = (semantic if operand is None else operand for operand in (semantic, detail, flagged, error))
    outputs = (fused.labels if output is None else output for output in (fused.labels, fused.confidence, fused.error))
    launcher.launch(
        Launch(
            "fuse_labels.fuse_cells",
            (tile_count(cell_rows, cell_cols),),
            (
                *operands,
                *outputs,
                0 if detail is None else detail.shape[0],
                height,
                width,
                size[1],
                *(number for axis in geometry.axes() for number in _axis_arguments(axis, position)),
            ),
            {
                "CLASSES": classes,
                "DETAIL": kind,
                "CONFIDENCE": confidence,
                "ERROR": error is not None,
                "POSITION": position,
                "CELLS": CELLS,
                **({"TILE_ROWS": TILE_ROWS} if TILE_ROWS > 1 else {}),
            },
            WARPS,
        )
    )
    return fused


def tile_count(rows: int, cols: int) -> int:
    """How many tiles hold so many cells."""
    if TILE_ROWS == 1:
        return cdiv(rows * cols, CELLS)
    return cdiv(rows, TILE_ROWS) * cdiv(cols, CELLS // TILE_ROWS)


def position_type(geometry: Geometry) -> str:
    """The smallest integer type that holds every position on the grid."""
    largest = max(
        abs(axis.slope) * axis.pixels + abs(axis.offset) + axis.unit * (axis.lines + 1) for axis in geometry.axes()
    )
    return "int32" if largest < 2**31 else "int64"


def _axis_arguments(axis: Axis, position: str) -> tuple[int | Wide, ...]:
    first, last = axis.cells()
    places = axis.slope, axis.offset, axis.first, axis.last, axis.unit
    wide = (Wide(place) if position == "int64" else place for place in places)
    return *wide, axis.pixels, first, last - first + 1
