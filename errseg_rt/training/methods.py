"""What flags a pixel and what the fused answer is: the method (Gong et al. 2021, eq. 4 and 5) and its comparisons."""

from __future__ import annotations

import torch
from torch import Tensor

from errseg_rt.networks.cascade import flag
from errseg_rt.training.recipe_learning import MethodConfig


def flagged_by(method: MethodConfig, threshold: float, logits: Tensor, error_logit: Tensor) -> Tensor:
    """Pixels whose label is taken from the detail branch, `bool [B, h, w]`.

    Args:
        method: The selector.
        threshold: t of eq. 4.
        logits: Semantic logits on the grid, `[B, classes, h, w]`.
        error_logit: `[B, 1, h, w]`.
    """
    if method.selector == "error":
        return flag(error_logit[:, 0], threshold)
    p_sb = logits.softmax(dim=1)
    if method.selector == "entropy":
        entropy: Tensor = torch.special.entr(p_sb).sum(dim=1)
        return entropy > method.limit
    if method.selector == "confidence":
        return p_sb.amax(dim=1) <= 1 - method.limit
    return torch.ones_like(error_logit[:, 0], dtype=torch.bool)


def answer(method: MethodConfig, logits: Tensor, detail_logits: Tensor) -> Tensor:
    """Logits of what a flagged pixel becomes, `[B, classes, h, w]`."""
    if method.fusion == "replace":
        return detail_logits
    pair = torch.stack([logits.log_softmax(dim=1), detail_logits.log_softmax(dim=1)])
    return pair.logsumexp(dim=0)  # log(P_sb + P_db): a constant beside the logarithm of their mean
