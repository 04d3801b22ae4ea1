"""Fusion on an NVIDIA GPU, as an operator of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from errseg_rt.kernels.device import on_device_of
from errseg_rt.kernels.fuse_labels.geometry import Axis, Geometry
from errseg_rt.kernels.fuse_labels.operands import FusedLabels, check_operands
from errseg_rt.kernels.fuse_labels.triton_kernels import DETAIL_MAP, DETAIL_ROWS, NO_DETAIL, fuse_cells

FLOATS = ("float32", "float16", "bfloat16")
# One warp of 32 cells: the fewer cells, the more tiles whose corners all agree.
CELLS, WARPS = 32, 1


def fuse_labels(
    semantic: torch.Tensor,
    detail: torch.Tensor | None,
    flagged: torch.Tensor | None,
    geometry: Geometry,
    *,
    error: torch.Tensor | None = None,
    confidence: bool = False,
) -> FusedLabels[torch.Tensor]:
    """Label every pixel of the frame, in float32; `errseg_rt.kernels.fuse_labels` says it in full."""
    check_operands(semantic, detail, flagged, geometry, error, FLOATS)
    sizes = geometry.input_size, geometry.content_size, geometry.output_size
    labels, largest, error_map = torch.ops.errseg_rt.fuse_labels(
        semantic, detail, flagged, error, *sizes, geometry.align_corners, confidence
    )
    return FusedLabels(labels, largest if confidence else None, None if error is None else error_map)


@torch.library.custom_op("errseg_rt::fuse_labels", mutates_args=())
def _fuse_labels(
    semantic: torch.Tensor,
    detail: torch.Tensor | None,
    flagged: torch.Tensor | None,
    error: torch.Tensor | None,
    input_size: Sequence[int],
    content_size: Sequence[int],
    output_size: Sequence[int],
    align_corners: bool,
    confidence: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Labels, confidence and error map; an empty tensor for what is not wanted."""
    classes, height, width = semantic.shape
    padded, content, output = ((int(size[0]), int(size[1])) for size in (input_size, content_size, output_size))
    geometry = Geometry((height, width), padded, content, output, align_corners)
    outputs = _outputs(semantic, error, output_size, confidence)
    kind = NO_DETAIL if detail is None else DETAIL_ROWS if detail.ndim == 2 else DETAIL_MAP
    cell_rows, cell_cols = (last - first + 1 for first, last in (axis.cells() for axis in geometry.axes()))
    # An operand that is not there is not read either.
    operands = (semantic if operand is None else operand for operand in (semantic, detail, flagged, error))
    with on_device_of(semantic):
        fuse_cells[(triton.cdiv(cell_rows * cell_cols, CELLS),)](
            *operands,
            *outputs,
            0 if detail is None else len(detail),
            height,
            width,
            geometry.output_size[1],
            *_axis_arguments(geometry.axes()[0]),
            *_axis_arguments(geometry.axes()[1]),
            CLASSES=classes,
            DETAIL=kind.value,
            CONFIDENCE=confidence,
            ERROR=error is not None,
            POSITION=position_type(geometry),
            CELLS=CELLS,
            num_warps=WARPS,
        )
    return outputs


@_fuse_labels.register_fake
def _(
    semantic: torch.Tensor,
    detail: torch.Tensor | None,
    flagged: torch.Tensor | None,
    error: torch.Tensor | None,
    input_size: Sequence[int],
    content_size: Sequence[int],
    output_size: Sequence[int],
    align_corners: bool,
    confidence: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _outputs(semantic, error, output_size, confidence)


def _outputs(
    semantic: torch.Tensor, error: torch.Tensor | None, output_size: Sequence[int], confidence: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    none = (0, 0)
    return (
        semantic.new_empty(output_size, dtype=torch.uint8),
        semantic.new_empty(output_size if confidence else none, dtype=torch.float32),
        semantic.new_empty(none if error is None else output_size, dtype=torch.float32),
    )


def position_type(geometry: Geometry) -> tl.dtype:
    """The smallest integer type that holds every position on the grid."""
    largest = max(
        abs(axis.slope) * axis.pixels + abs(axis.offset) + axis.unit * (axis.lines + 1) for axis in geometry.axes()
    )
    return tl.int32 if largest < 2**31 else tl.int64


def _axis_arguments(axis: Axis) -> tuple[int, ...]:
    first, last = axis.cells()
    return axis.slope, axis.offset, axis.first, axis.last, axis.unit, axis.pixels, first, last - first + 1
