"""Which branch of the cascade each output of the front and the refine graph comes from."""

from __future__ import annotations

BRANCHES = {
    "semantic": ("logits", "low"),
    "error": ("error_logit",),
    "detail": ("coarse", "gate", "detail_logits"),
}
"""Outputs by branch. What several branches need belongs to the first of them."""


def branch_of_output(output: str) -> str:
    """The branch that gives an output."""
    return next(branch for branch, outputs in BRANCHES.items() if output in outputs)
