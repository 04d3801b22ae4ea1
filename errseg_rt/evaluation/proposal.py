"""Which t is worth its cost on some frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from errseg_rt.evaluation.sweep import ThresholdSweep

ENOUGH = 0.95
"""Share of the greatest gain that a cheaper t must keep."""
_FRAMES = 0.95  # share of the frames that the budget lets through uncut


@dataclass(frozen=True)
class Proposal:
    """A threshold and a budget.

    Attributes:
        t: Threshold on raw P_ep.
        gain: mIoU of the fused labels minus that with nothing flagged, in -1..1.
        flagged: Share of the grid that is flagged, mean over frames, in 0..1.
        work: Share of the dense stage's work that refining it takes, mean over frames, in 0..1.
        budget: Share of that work which nineteen frames in twenty do not exceed, in 0..1.
    """

    t: float
    gain: float
    flagged: float
    work: float
    budget: float


def propose(sweep: ThresholdSweep, without: float) -> Proposal | None:
    """The cheapest threshold that keeps 95 % of the greatest gain.

    Args:
        sweep: What some thresholds do.
        without: mIoU with nothing flagged.

    Returns:
        None where no threshold gains.
    """
    figures = {row.t: (row.gain, row.flagged, row.work) for row in sweep.rows(without)}
    worth = {
        t: (gain, flagged, work)
        for t, (gain, flagged, work) in figures.items()
        if gain is not None and flagged is not None and work is not None
    }
    best = max((gain for gain, *_ in worth.values()), default=0.0)
    if best <= 0:
        return None
    enough = [t for t, (gain, *_) in worth.items() if gain >= ENOUGH * best]
    t = min(enough, key=lambda t: worth[t][-1])
    return Proposal(t, *worth[t], budget=float(np.quantile(sweep.work[t], _FRAMES)))
