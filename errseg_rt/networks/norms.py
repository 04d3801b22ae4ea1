"""Norms of the branches: GroupNorm while they learn, then constants, so that stage 3 is local and folds away."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROUPS = 32  # Gong et al. 2021, section 4.3
_MIN_GROUP = 4  # fewer channels a group would make it an instance norm


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups where a group keeps at least 4 channels, else the most groups that do."""
    most = max(1, min(_GROUPS, channels // _MIN_GROUP))
    groups = next(groups for groups in range(most, 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


class FrozenNorm(nn.Module):
    """A norm whose statistics are constants: an affine map of each channel, which folds into the convolution before it.

    Args:
        channels: Channels of its input.
        eps: What is added to the variance.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, channels, h, w]`."""
        return F.batch_norm(x, self.mean, self.var, self.weight, self.bias, training=False, eps=self.eps)


def norm(channels: int, *, frozen: bool) -> nn.Module:
    """The norm of a branch: a GroupNorm, or what a frozen one becomes."""
    return FrozenNorm(channels) if frozen else group_norm(channels)


@torch.no_grad()
def freeze_norms(branch: nn.Module, run: Callable[[], None]) -> None:
    """Replace every GroupNorm of a branch by a `FrozenNorm` with the statistics of what passes through it.

    Args:
        branch: Changed in place. Statistics of a group are averaged over the images, each counting once.
        run: Passes images through the branch.

    Raises:
        ValueError: Nothing passed through one of its norms.
    """
    norms = {name: module for name, module in branch.named_modules() if isinstance(module, nn.GroupNorm)}
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in norms}

    def record(name: str, module: nn.GroupNorm, inputs: tuple[Any, ...], output: Tensor) -> None:
        groups = inputs[0].float().flatten(2).unflatten(1, (module.num_groups, -1)).flatten(2)
        seen[name].append((groups.mean(dim=2), groups.var(dim=2, correction=0)))

    hooks = [module.register_forward_hook(partial(record, name)) for name, module in norms.items()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in norms.items():
        if not seen[name]:
            raise ValueError(f"nothing passed through the norm {name}, so that it has no statistics to keep")
        frozen = FrozenNorm(module.num_channels, module.eps).to(module.weight.device)
        size = module.num_channels // module.num_groups
        for kept, found in zip((frozen.mean, frozen.var), zip(*seen[name], strict=True), strict=True):
            kept.copy_(torch.cat(found).mean(dim=0).repeat_interleave(size))
        frozen.weight.copy_(module.weight)
        frozen.bias.copy_(module.bias)
        parent, _, child = name.rpartition(".")
        setattr(branch.get_submodule(parent), child, frozen)
