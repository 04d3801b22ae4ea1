"""Selection on an NVIDIA GPU, as an operator of torch that never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from errseg_rt.kernels.select.checks import check, level
from errseg_rt.kernels.select.launches import enqueue_select
from errseg_rt.kernels.select.operands import DeviceSelection
from errseg_rt.kernels.torch_launcher import TorchLauncher

FLOATS = ("float32", "float16", "bfloat16")


def select(
    error_logit: torch.Tensor,  # [h, w]
    threshold: float,
    *,
    seen: tuple[int, int] | None = None,
    row_work: tuple[int, int, int] = (1, 1, 1),
    budget: int | None = None,
) -> DeviceSelection:
    """Select on CUDA tensors; `errseg_rt.kernels.select` says it in full."""
    check(error_logit, threshold, seen, row_work, budget, FLOATS)
    grid = (error_logit.shape[0], error_logit.shape[1])
    outputs = torch.ops.errseg_rt.select(error_logit, level(threshold), seen or grid, row_work, budget)
    return DeviceSelection(grid, *outputs)


@torch.library.custom_op("errseg_rt::select", mutates_args=())
def _select(
    error_logit: torch.Tensor, level: float, seen: Sequence[int], row_work: Sequence[int], budget: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, slots, counts, number left out, and flagged pixels, as a `DeviceSelection` has them."""
    found = enqueue_select(
        TorchLauncher(error_logit.device), error_logit, level, seen=seen, row_work=row_work, budget=budget
    )
    return found.rows, found.slots, found.counts, found.left_out, found.flagged


@_select.register_fake
def _(
    error_logit: torch.Tensor, level: float, seen: Sequence[int], row_work: Sequence[int], budget: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    pixels = error_logit.numel()
    return (
        error_logit.new_empty((3, pixels), dtype=torch.int32),
        error_logit.new_empty((3, pixels), dtype=torch.int32),
        error_logit.new_empty((3,), dtype=torch.int32),
        error_logit.new_empty((), dtype=torch.int32),
        error_logit.new_empty(error_logit.shape, dtype=torch.bool),
    )
