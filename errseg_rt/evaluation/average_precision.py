"""Average precision of ranked hypotheses, for many weightings of the frames at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which COCO takes precision."""


def area_of_envelope(is_true: npt.NDArray[np.bool_], weights: Floats, truths: Floats) -> Floats:
    """Area under precision over recall, precision being the best at this recall or a higher one (PASCAL VOC from 2010).

    So do the authors of mAP^r (`getPR` in https://github.com/bharath272/sds); others after them take the mean at 11
    recalls, as VOC until 2009.

    Args:
        is_true: Which hypotheses are true positives, the others being false ones, by falling score, `[D]`.
        weights: How often each counts, `[B, D]`.
        truths: How many there are to be found, `[B]`.

    Returns:
        In 0..1, `[B]`; 0 without a hypothesis, NaN with nothing to be found.
    """
    gained = weights * is_true
    area = (gained * _best_from_here(gained, weights)).sum(axis=1)
    scores: Floats = np.divide(area, truths, out=np.full(len(truths), np.nan), where=truths > 0)
    return scores


def mean_of_recalls(is_true: npt.NDArray[np.bool_], weights: Floats, truths: Floats) -> Floats:
    """Mean of that precision at 101 recalls, 0 where one is not reached (COCO); arguments as `area_of_envelope`."""
    gained = weights * is_true
    best = _best_from_here(gained, weights)
    means = np.full(len(truths), np.nan)
    for row in np.flatnonzero(truths > 0):
        recall = gained[row].cumsum() / truths[row]
        place = np.searchsorted(recall, RECALLS)
        reached = place[place < len(recall)]
        means[row] = best[row, reached].sum() / len(RECALLS)
    return means


def _best_from_here(gained: Floats, weights: Floats) -> Floats:
    """Best precision at each hypothesis or after it, `[B, D]`."""
    seen = weights.cumsum(axis=1)
    precision = np.divide(gained.cumsum(axis=1), seen, out=np.zeros(seen.shape), where=seen > 0)
    best: Floats = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return best
