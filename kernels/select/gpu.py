"""Selection on an NVIDIA GPU, as an operator of torch that never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton

from errseg_rt.kernels.device import on_device_of
from errseg_rt.kernels.select.checks import check, level
from errseg_rt.kernels.select.supports import DeviceSelection
from errseg_rt.kernels.select.triton_kernels import add_work, count, flag, number

FLOATS = ("float32", "float16", "bfloat16")
PIXELS, WARPS = 512, 8


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
    height, width = error_logit.shape
    rows, slots, counts, left_out, flagged = _outputs(error_logit)
    tiles = triton.cdiv(height * width, PIXELS)
    sums = counts.new_empty((3, tiles))
    with on_device_of(error_logit):
        flag[(tiles,)](error_logit, level, height, width, *seen, flagged, PIXELS=PIXELS, num_warps=WARPS)
        if budget is not None:
            found = flagged.sum(dtype=torch.int32)
            flagged = _fitting(error_logit, flagged, row_work, budget)
            left_out = found - flagged.sum(dtype=torch.int32)
        count[(tiles,)](flagged, height, width, sums, PIXELS=PIXELS, num_warps=WARPS)
        number[(tiles,)](
            flagged,
            height,
            width,
            sums,
            rows,
            slots,
            counts,
            PIXELS=PIXELS,
            TILES=triton.next_power_of_2(tiles),
            num_warps=WARPS,
        )
    return rows, slots, counts, left_out, flagged


@_select.register_fake
def _(
    error_logit: torch.Tensor, level: float, seen: Sequence[int], row_work: Sequence[int], budget: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return _outputs(error_logit)


def _outputs(
    error_logit: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    pixels = error_logit.numel()
    return (
        error_logit.new_full((3, pixels), -1, dtype=torch.int32),
        error_logit.new_empty((3, pixels), dtype=torch.int32),
        error_logit.new_empty((3,), dtype=torch.int32),
        error_logit.new_zeros((), dtype=torch.int32),
        error_logit.new_empty(error_logit.shape, dtype=torch.bool),
    )


def _fitting(error_logit: torch.Tensor, flagged: torch.Tensor, row_work: Sequence[int], budget: int) -> torch.Tensor:
    """The flagged pixels, by descending logit and ties by index, as far as their supports fit the budget."""
    height, width = error_logit.shape
    pixels = height * width
    # What is not flagged comes last: no flagged logit is that low.
    values = torch.where(flagged, error_logit.float(), -torch.inf).view(-1)
    order = torch.sort(values, descending=True, stable=True).indices
    rank = torch.empty_like(order, dtype=torch.int32)
    rank[order] = torch.arange(pixels, dtype=torch.int32, device=order.device)
    rank = torch.where(flagged.view(-1), rank, pixels)
    work = torch.zeros_like(order)
    tiles = triton.cdiv(pixels, PIXELS)
    add_work[(tiles,)](rank, height, width, *row_work, work, PIXELS=PIXELS, num_warps=WARPS)
    taken = (work.cumsum(0) <= budget).sum()
    return (rank < taken).view(height, width) & flagged
