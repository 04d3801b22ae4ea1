"""Finding instances on an NVIDIA GPU, as an operator of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import torch

from errseg_rt.kernels.fuse_labels.torch_op import FLOATS
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.instances.launches import DeviceThings, enqueue_instances
from errseg_rt.kernels.instances.operands import InstanceMap, check
from errseg_rt.kernels.instances.spec import InstanceSpec
from errseg_rt.kernels.torch_launcher import TorchLauncher


def instances(
    semantic: torch.Tensor,
    detail: torch.Tensor | None,
    flagged: torch.Tensor | None,
    boxes: torch.Tensor,
    labels: torch.Tensor,
    geometry: Geometry,
    spec: InstanceSpec,
) -> InstanceMap[torch.Tensor]:
    """Tell instances apart on CUDA tensors; `errseg_rt.kernels.instances` says it in full."""
    check(semantic, detail, flagged, boxes, labels, geometry, spec, FLOATS)
    sizes = geometry.input_size, geometry.content_size, geometry.output_size
    return InstanceMap(
        *torch.ops.errseg_rt.instances(
            semantic, detail, flagged, boxes, labels, *sizes, geometry.align_corners, *astuple(spec)
        )
    )


@torch.library.custom_op("errseg_rt::instances", mutates_args=())
def _instances(
    semantic: torch.Tensor,
    detail: torch.Tensor | None,
    flagged: torch.Tensor | None,
    boxes: torch.Tensor,
    labels: torch.Tensor,
    input_size: Sequence[int],
    content_size: Sequence[int],
    output_size: Sequence[int],
    align_corners: bool,
    classes: Sequence[int],
    top: int,
    overlap: float,
    least_score: float,
    least_pixels: int,
    least_fill: float,
    region_overlap: float,
    most: int,
    hops: int,
    agreement: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Map, classes, scores and count, as an `InstanceMap` has them; from `classes` on it is an `InstanceSpec`."""
    padded, content, output = ((int(size[0]), int(size[1])) for size in (input_size, content_size, output_size))
    geometry = Geometry((semantic.shape[1], semantic.shape[2]), padded, content, output, align_corners)
    spec = InstanceSpec(
        tuple(int(label) for label in classes),
        top,
        overlap,
        least_score,
        least_pixels,
        least_fill,
        region_overlap,
        most,
        hops,
        agreement,
    )
    launcher = TorchLauncher(semantic.device)
    table = launcher.empty((len(semantic),), "float32").fill_(-1)
    for thing, label in enumerate(spec.classes):
        table[label].fill_(thing)  # a copy from the host would be waited for
    found = enqueue_instances(launcher, semantic, detail, flagged, boxes, labels, geometry, DeviceThings(spec, table))
    return found.map, found.classes, found.scores, found.count


@_instances.register_fake
def _(
    semantic: torch.Tensor,
    detail: torch.Tensor | None,
    flagged: torch.Tensor | None,
    boxes: torch.Tensor,
    labels: torch.Tensor,
    input_size: Sequence[int],
    content_size: Sequence[int],
    output_size: Sequence[int],
    align_corners: bool,
    classes: Sequence[int],
    top: int,
    overlap: float,
    least_score: float,
    least_pixels: int,
    least_fill: float,
    region_overlap: float,
    most: int,
    hops: int,
    agreement: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        semantic.new_empty(output_size, dtype=torch.int32),
        semantic.new_empty((most,), dtype=torch.int32),
        semantic.new_empty((most,), dtype=torch.float32),
        semantic.new_empty((), dtype=torch.int32),
    )
