"""Selection: which grid pixels are labelled again, and what must be computed for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from errseg_rt.kernels.select.layers import LAYERS, Layers
from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    from errseg_rt.kernels.select.operands import Selection
    from errseg_rt.kernels.select.reference import select_reference, supports_reference

__all__ = ["Layers", "Selection", "select", "select_reference", "supports_reference"]


def select(
    error_logit: Any,  # [h, w]
    threshold: float,
    *,
    seen: tuple[int, int] | None = None,
    layers: Layers = LAYERS,
    budget: int | None = None,
) -> Selection:
    """Flag the pixels to label again (Gong et al. 2021, eq. 4) within a budget, with the supports that they need.

    A pixel is flagged where P_ep > t, compared as logits, since a sigmoid saturates into ties. Its label by three
    layers needs the last layer there (F3), the second as far around as the last one's kernel reaches (F2), and so the
    first (F1). Flagged pixels enter by descending error logit, ties by index, until the next one's supports would
    exceed the budget: what is taken is the longest such run, and its work never exceeds it, n1, n2 and n3 being how
    many pixels the supports have: `n1 * work[0] + n2 * work[1] + n3 * work[2]`.

        selection = select(error_logit, 0.7, layers=Layers((331_776, 186_624, 189_360)), budget=2 * 10**9)
        logits_of_flagged = refine(weights, selection, ...)

    NumPy arrays are worked on by the CPU, CUDA tensors by their GPU, in its current stream and without waiting for it:
    buffers hold the whole grid, and counts stay on the device. There it is the operator `torch.ops.errseg_rt.select`,
    which `torch.compile`, `torch.export` and CUDA graphs take in. The result is the same on both, and in every run.

    Args:
        error_logit: `[h, w]`, float32 or float16, or bfloat16 on the GPU; P_ep is its sigmoid.
        threshold: t, strictly between 0 and 1.
        seen: How many rows and columns of the grid, from the first, the frame is made from (`Geometry.seen`): what lies
            beyond is never flagged, but may be in F2 and F1. None: all.
        layers: What a pixel of F1, F2 and F3 costs, and the kernels by which F1 and F2 reach beyond F3.
        budget: Most multiply-adds; None: no limit.

    Returns:
        The flagged pixels with the supports that they need, and how many the budget left out.

    Raises:
        ValueError: Another rank, shape, dtype or device, an array that is not C-contiguous, or an argument out of
            range; for NumPy arrays also an error logit that is not finite. On the GPU a NaN is not flagged.
    """
    from errseg_rt.kernels.arrays import is_tensor

    if is_tensor("error_logit", error_logit):
        from errseg_rt.kernels.select import torch_op

        return torch_op.select(error_logit, threshold, seen=seen, layers=layers, budget=budget)
    from errseg_rt.kernels.select import cpu

    return cpu.select(error_logit, threshold, seen=seen, layers=layers, budget=budget)


__getattr__ = lazy(
    __name__,
    {
        "Selection": f"{__name__}.operands",
        "select_reference": f"{__name__}.reference",
        "supports_reference": f"{__name__}.reference",
    },
)
