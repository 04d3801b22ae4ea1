"""Refinement on an NVIDIA GPU, as an operator of torch that never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from errseg_rt.kernels.arrays import check_array
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.kernels.refine.checks import check_inputs, check_selection
from errseg_rt.kernels.refine.launches import enqueue_layers, is_channels_last
from errseg_rt.kernels.refine.operands import DeviceWeights
from errseg_rt.kernels.select import Selection
from errseg_rt.kernels.torch_launcher import TorchLauncher

FLOATS = ("float32", "float16", "bfloat16")


def refine(
    weights: DeviceWeights,
    selection: Selection,
    logits: torch.Tensor,  # [K, h, w]
    low: torch.Tensor,  # [Cl, h, w], planes or channels last
    coarse: torch.Tensor,  # [Cc, h8, w8]
    gate: torch.Tensor,  # [C]
) -> torch.Tensor:  # [h * w, K]
    """Refine on CUDA tensors; `errseg_rt.kernels.refine` says it in full."""
    if not isinstance(weights, DeviceWeights):
        raise ValueError(f"tensors want weights that are DeviceWeights, got {type(weights).__name__}")
    dtypes, place = (dtype_of(weights.low),), str(low.device)
    check_selection(selection, place)
    check_inputs(
        weights.host, selection.grid_size, logits, low, coarse, gate,
        dtypes=dtypes, place=place, is_low_packed=is_channels_last(low),
    )  # fmt: skip
    check_array("weights", weights.low, dtypes, tuple(weights.low.shape), place=place)
    out: torch.Tensor = torch.ops.errseg_rt.refine(
        logits, low, coarse, gate, selection.rows, selection.slots, selection.counts, weights.arrays,
        weights.host.residual, weights.host.align_corners,
    )  # fmt: skip
    return out


@torch.library.custom_op("errseg_rt::refine", mutates_args=())
def _refine(
    logits: torch.Tensor,
    low: torch.Tensor,
    coarse: torch.Tensor,
    gate: torch.Tensor,
    rows: torch.Tensor,
    slots: torch.Tensor,
    counts: torch.Tensor,
    weights: Sequence[torch.Tensor],
    residual: bool,
    align_corners: bool,
) -> torch.Tensor:
    """Detail logits `[h * w, K]`, of which the first n3 rows are written."""
    operands = rows, slots, counts, logits, low, coarse, gate
    out: torch.Tensor = enqueue_layers(TorchLauncher(low.device), weights, *operands, residual, align_corners)
    return out


@_refine.register_fake
def _(
    logits: torch.Tensor,
    low: torch.Tensor,
    coarse: torch.Tensor,
    gate: torch.Tensor,
    rows: torch.Tensor,
    slots: torch.Tensor,
    counts: torch.Tensor,
    weights: Sequence[torch.Tensor],
    residual: bool,
    align_corners: bool,
) -> torch.Tensor:
    return logits.new_empty((logits.shape[1] * logits.shape[2], logits.shape[0]))
