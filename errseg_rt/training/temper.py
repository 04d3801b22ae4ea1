"""How far the error-prediction branch goes from what the semantic branch says of its own doubts."""

from __future__ import annotations

import torch

from errseg_rt.networks.error_branch import ErrorBranch


@torch.no_grad()
def temper(branch: ErrorBranch, trust: float) -> None:
    """Scale what a residual branch adds to the semantic logits, in place; its last layer takes the factor in.

    Args:
        branch: Trained, with `residual`.
        trust: 0 leaves the order of pixels to 1 - max P_sb, 1 to what was learned.
    """
    assert branch.head.bias is not None
    branch.head.weight *= trust
    branch.head.bias *= trust
