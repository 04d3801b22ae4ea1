"""Fusion on an NVIDIA GPU, as an operator of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from errseg_rt.kernels.fuse_labels.launches import enqueue_fuse_labels
from errseg_rt.kernels.fuse_labels.operands import FusedLabels, check_operands
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.torch_launcher import TorchLauncher

FLOATS = ("float32", "float16", "bfloat16")


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
    padded, content, output = ((int(size[0]), int(size[1])) for size in (input_size, content_size, output_size))
    geometry = Geometry((semantic.shape[1], semantic.shape[2]), padded, content, output, align_corners)
    launcher = TorchLauncher(semantic.device)
    fused = enqueue_fuse_labels(launcher, semantic, detail, flagged, geometry, error=error, confidence=confidence)
    none = launcher.empty((0, 0), "float32")
    return (
        fused.labels,
        none if fused.confidence is None else fused.confidence,
        none.clone() if fused.error is None else fused.error,  # two outputs of an operator may not be one
    )


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
    none = (0, 0)
    return (
        semantic.new_empty(output_size, dtype=torch.uint8),
        semantic.new_empty(output_size if confidence else none, dtype=torch.float32),
        semantic.new_empty(none if error is None else output_size, dtype=torch.float32),
    )
