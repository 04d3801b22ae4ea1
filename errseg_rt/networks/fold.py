"""Norms that are constants, folded into the convolutions before them: on a GPU each would be a pass over the map."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from errseg_rt.networks.norms import FrozenNorm


@torch.no_grad()
def fold_norms(network: nn.Module) -> None:
    """Fold BatchNorms in eval mode and frozen norms, in place; what a norm leaves is an identity.

    Args:
        network: Its modules hold a norm right behind the convolution that it follows, as those of
            `errseg_rt.networks` do. Norms elsewhere, and GroupNorms, stay.
    """
    for parent in list(network.modules()):
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d | FrozenNorm):
                continue
            if isinstance(norm, FrozenNorm):
                mean, var = norm.mean, norm.var
            else:
                assert norm.running_mean is not None
                assert norm.running_var is not None
                mean, var = norm.running_mean, norm.running_var
            factor = norm.weight.double() / (var.double() + norm.eps).sqrt()
            before = 0 if conv.bias is None else conv.bias.double()
            bias = norm.bias.double() + factor * (before - mean.double())
            conv.weight.copy_(conv.weight.double() * factor[:, None, None, None])
            conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
            setattr(parent, name, nn.Identity())
