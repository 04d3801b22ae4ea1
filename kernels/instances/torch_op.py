"""Finding instances on an NVIDIA GPU, on torch's tensors."""

from __future__ import annotations

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
    things = DeviceThings.brought(spec, len(semantic), lambda table, dtype: torch.from_numpy(table).to(semantic.device))
    return enqueue_instances(TorchLauncher(semantic.device), semantic, detail, flagged, boxes, labels, geometry, things)
