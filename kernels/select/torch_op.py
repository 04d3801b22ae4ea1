"""Selection on an NVIDIA GPU, as an operator of torch that never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from errseg_rt.kernels.select.checks import check
from errseg_rt.kernels.select.launches import enqueue_select
from errseg_rt.kernels.select.layers import LAYERS, Layers
from errseg_rt.kernels.select.operands import Bounds, Selection
from errseg_rt.kernels.torch_launcher import TorchLauncher

FLOATS = ("float32", "float16", "bfloat16")


def select(
    error_logit: torch.Tensor,  # [h, w]
    threshold: float,
    *,
    seen: tuple[int, int] | None = None,
    layers: Layers = LAYERS,
    budget: int | None = None,
) -> Selection:
    """Select on CUDA tensors; `errseg_rt.kernels.select` says it in full."""
    check(error_logit, threshold, seen, layers, budget, FLOATS)
    grid = (error_logit.shape[0], error_logit.shape[1])
    return Selection(*torch.ops.errseg_rt.select(error_logit, threshold, seen or grid, *layers, budget))


@torch.library.custom_op("errseg_rt::select", mutates_args=())
def _select(
    error_logit: torch.Tensor,
    threshold: float,
    seen: Sequence[int],
    work: Sequence[int],
    kernels: Sequence[int],
    budget: int | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, slots, counts, number left out, and flagged pixels, as a `Selection` has them."""
    launcher = TorchLauncher(error_logit.device)
    limits = launcher.empty((2,), "int64")
    for word, value in enumerate(Bounds(threshold, budget).words().tolist()):
        limits[word].fill_(value)  # a copy from the host would be waited for
    layers = Layers((work[0], work[1], work[2]), (kernels[0], kernels[1], kernels[2]))
    found = enqueue_select(launcher, error_logit, limits, seen=seen, layers=layers)
    return found.rows, found.slots, found.counts, found.left_out, found.flagged


@_select.register_fake
def _(
    error_logit: torch.Tensor,
    threshold: float,
    seen: Sequence[int],
    work: Sequence[int],
    kernels: Sequence[int],
    budget: int | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    pixels = error_logit.numel()
    return (
        error_logit.new_empty((3, pixels), dtype=torch.int32),
        error_logit.new_empty((3, pixels), dtype=torch.int32),
        error_logit.new_empty((3,), dtype=torch.int32),
        error_logit.new_empty((), dtype=torch.int32),
        error_logit.new_empty(error_logit.shape, dtype=torch.bool),
    )
