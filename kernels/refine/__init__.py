"""Refinement: stage 3 of the detail branch, computed only where its result is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    import torch

    from errseg_rt.kernels.refine.operands import DeviceWeights
    from errseg_rt.kernels.refine.reference import refine_reference, stage_reference
    from errseg_rt.kernels.refine.weights import Array, RefineWeights
    from errseg_rt.kernels.refine.work import BREAK_EVEN, share_of_work
    from errseg_rt.kernels.select import Selection

__all__ = [
    "BREAK_EVEN",
    "DeviceWeights",
    "RefineWeights",
    "refine",
    "refine_reference",
    "share_of_work",
    "stage_reference",
]


@overload
def refine(
    weights: RefineWeights,
    selection: Selection,
    logits: Array,
    low: Array,
    coarse: Array,
    gate: Array,
    *,
    threads: int = 1,
) -> Array: ...


@overload
def refine(
    weights: DeviceWeights,
    selection: Selection,
    logits: torch.Tensor,
    low: torch.Tensor,
    coarse: torch.Tensor,
    gate: torch.Tensor,
) -> torch.Tensor: ...


def refine(
    weights: Any,
    selection: Selection,
    logits: Any,  # [K, h, w]
    low: Any,  # [Cl, h, w]
    coarse: Any,  # [Cc, h8, w8]
    gate: Any,  # [C]
    *,
    threads: int = 1,
) -> Any:  # [n3, K]
    """Compute the last stage of a decoder (Gong et al. 2021, section 3.4) at the flagged pixels only.

    `RefineWeights` has the formula: a projection, three convolutions of 3x3 or 1x1 and a head. Each is local, so that
    on the supports they give what they give everywhere, up to rounding: rows equal those of `stage_reference` at the
    flagged pixels. What it costs is `share_of_work`; above a share of `BREAK_EVEN`, dense convolutions are the faster
    way.

        selection = select(error_logit, 0.7, layers=weights.layers)
        rows = refine(weights, selection, logits, low, coarse, gate, threads=2)
        labels = fuse_labels(logits, rows, selection.slots[2].reshape(selection.grid_size), geometry).labels

    NumPy arrays are worked on by the CPU in float32, CUDA tensors by their GPU with float32 sums, in its current stream
    and without waiting for it. There it is the operator `torch.ops.errseg_rt.refine`, which `torch.compile`,
    `torch.export` and CUDA graphs take in. It may be called from several threads at once; on the CPU the GIL is
    released. Values are not searched for NaN: what is not finite spreads to the flagged pixels within whose reach it
    lies, 7x7 where all three kernels are 3x3.

    Args:
        weights: What the stage has learned; on the GPU, `DeviceWeights.of` them.
        selection: Of the flagged pixels, as `select` gives it for `weights.layers`.
        logits: Semantic logits `[K, h, w]`, float32; on the GPU also float16 or bfloat16. They are added where
            `weights.residual`.
        low: Features at stride 4, `[Cl, h, w]`, of the same dtype, like the following. On the GPU the channels may
            also come last in memory, as a view of `torch.channels_last`: then nothing is moved.
        coarse: Output of stage 2, `[Cc, h8, w8]`; not finer than the grid.
        gate: Stage 3's channel weights, `[C]`.
        threads: How many threads share the work, at most; on the CPU alone.

    Returns:
        Detail logits of the flagged pixels in raster order, `[n3, K]`, of that dtype; on the GPU `[h * w, K]`, of which
        the first n3 rows are written.

    Raises:
        ValueError: Another rank, shape, dtype, layout or device, supports that do not fit each other (seen on the CPU
            alone), or `threads` below 1.
    """
    from errseg_rt.kernels.arrays import is_tensor

    if is_tensor("low", low):
        from errseg_rt.kernels.refine import torch_op

        return torch_op.refine(weights, selection, logits, low, coarse, gate)
    from errseg_rt.kernels.refine import cpu

    return cpu.refine(weights, selection, logits, low, coarse, gate, threads=threads)


__getattr__ = lazy(
    __name__,
    {
        "BREAK_EVEN": f"{__name__}.work",
        "DeviceWeights": f"{__name__}.operands",
        "RefineWeights": f"{__name__}.weights",
        "refine_reference": f"{__name__}.reference",
        "share_of_work": f"{__name__}.work",
        "stage_reference": f"{__name__}.reference",
    },
)
