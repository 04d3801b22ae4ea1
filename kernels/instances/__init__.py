"""Instances: from class logits and boxes on the grid to a map of instances at the frame's size (Wu et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from errseg_rt.kernels.fuse_labels.reference import Flagged, Logits
    from errseg_rt.kernels.geometry import Geometry
    from errseg_rt.kernels.instances.operands import InstanceMap
    from errseg_rt.kernels.instances.reference import instances_reference
    from errseg_rt.kernels.instances.spec import InstanceSpec

__all__ = ["InstanceMap", "InstanceSpec", "instances", "instances_reference"]


@overload
def instances(
    semantic: Logits,
    detail: Logits | None,
    flagged: Flagged | None,
    boxes: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    geometry: Geometry,
    spec: InstanceSpec,
    *,
    threads: int = 1,
) -> InstanceMap[npt.NDArray[Any]]: ...


@overload
def instances(
    semantic: torch.Tensor,
    detail: torch.Tensor | None,
    flagged: torch.Tensor | None,
    boxes: torch.Tensor,
    labels: torch.Tensor,
    geometry: Geometry,
    spec: InstanceSpec,
) -> InstanceMap[torch.Tensor]: ...


def instances(
    semantic: Any,  # [C, h, w]
    detail: Any,  # [C, h, w] or [n, C]
    flagged: Any,  # [h, w]
    boxes: Any,  # [4 T, h, w]
    labels: Any,  # [H, W]
    geometry: Geometry,
    spec: InstanceSpec,
    *,
    threads: int = 1,
) -> InstanceMap[Any]:
    """Tell the instances of some classes, the things, apart (Wu et al. 2016, section 2.1, steps 1 to 6).

    On the grid, each pixel has the logits that `fuse_labels` takes for it, and for each thing the box of the instance
    that it would belong to. For each thing, and k from 1 to n, pixels with the thing among their k highest classes are
    candidates. They are ranked by how far the thing's logit lies above that of the best other class: the order of
    scores where there are two classes, and without the ties into which scores near 1 saturate. The first candidate
    becomes a hypothesis and takes every candidate left whose box overlaps with its own by an IoU above
    `spec.overlap`; then the first one left does, and so on. A hypothesis's confidence is the mean score (softmax) of
    its pixels. Small and doubtful hypotheses are dropped; of two whose masks overlap much the less confident one is;
    pixels of several belong to the most confident. Grid pixels that no pixel of the frame is made from take no part.

    Two options go beyond the paper. With `spec.hops`, a candidate's box first gives way to that of the pixel at its
    centre, so many times, where the best class is the same thing and the boxes overlap by more than `spec.overlap`.
    With `spec.agreement`, a score counts times the IoU of the pixel's own box, before any hop, with that of the
    hypothesis's first candidate.

    A pixel of the frame takes, of the four grid pixels around it, the instance of its label's class that has the
    largest share of it, as bilinear interpolation weighs them: the share decides labels too, and is symmetric where
    instances touch, which an interpolated box is not. No instance of its class among them: none.

    All implementations give equal maps. NumPy arrays are worked on by the CPU, CUDA tensors by their GPU, in its
    current stream and without waiting for it; nothing is cast or moved.

    Args:
        semantic: Logits `[C, h, w]`, as `fuse_labels` takes them, and the next two.
        detail: Other logits, of every grid pixel or of some; None to replace nothing.
        flagged: Which pixels take theirs from `detail`.
        boxes: float32 `[4 T, h, w]`, finite. Of thing t, channels 4 t to 4 t + 3 hold dy, dx, height and width in grid
            cells: the centre of the box lies at (row + dy, column + dx). Sides below 1 count as 1.
        labels: `uint8 [H, W]`, as `fuse_labels` gives them.
        geometry: How the frame's pixels lie on the grid.
        spec: Which classes are things, and what is dropped.
        threads: How many threads share the work; on the CPU alone.

    Returns:
        Instances by falling score.

    Raises:
        ValueError: Another rank, shape, dtype or device, an array that is not C-contiguous, a thing that is no class.
    """
    from errseg_rt.kernels.arrays import is_tensor

    if is_tensor("semantic", semantic):
        from errseg_rt.kernels.instances import torch_op

        return torch_op.instances(semantic, detail, flagged, boxes, labels, geometry, spec)
    from errseg_rt.kernels.instances import cpu

    return cpu.instances(semantic, detail, flagged, boxes, labels, geometry, spec, threads=threads)


__getattr__ = lazy(
    __name__,
    {
        "InstanceMap": f"{__name__}.operands",
        "InstanceSpec": f"{__name__}.spec",
        "instances_reference": f"{__name__}.reference",
    },
)
