"""Fitting a calibration map: from the logit of a score to how often it is followed by an error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.evaluation.groups import equal_mass
from errseg_rt.evaluation.histogram import Counts, ErrorHistogram

KNOTS = 32
"""Knots of a map, where there are pixels enough."""


def fit_calibration(logit: npt.NDArray[np.floating], wrong: npt.NDArray[np.bool_], knots: int = KNOTS) -> Calibration:
    """Isotonic regression of the error rate over groups of pixels.

    Groups are even in correct and wrong pixels together, each kind weighing the same in total: where errors are rare,
    groups even in pixels would leave one knot to all that is likely wrong.

    Args:
        logit: Of the score, `[N]`, of valid pixels on frames that the semantic branch did not learn from.
        wrong: Whether the semantic label was wrong, `[N]`.
        knots: Most knots of the map.

    Raises:
        ValueError: There is no pixel, the arrays do not pair, or a logit is not finite.
    """
    if logit.shape != wrong.shape or not logit.size:
        raise ValueError(f"wanted pixels in pairs: {logit.shape = }, {wrong.shape = }")
    if not np.isfinite(logit).all():
        raise ValueError(f"{(~np.isfinite(logit)).sum()} of {logit.size} logits are not finite")
    values, member = np.unique(logit, return_inverse=True)
    counts = np.bincount(2 * member + wrong, minlength=2 * len(values)).reshape(-1, 2)
    return _fit(values.astype(np.float64), counts, knots)


def fit_histogram(histogram: ErrorHistogram, knots: int = KNOTS) -> Calibration:
    """The same for pixels that were counted in bins.

    Raises:
        ValueError: There is no pixel.
    """
    values, counts = histogram.filled()
    if not values.size:
        raise ValueError("no pixel to fit a calibration on")
    return _fit(values, counts, knots)


def _fit(values: npt.NDArray[np.float64], counts: Counts, knots: int) -> Calibration:
    from scipy.optimize import isotonic_regression

    totals = counts.sum(axis=0)
    group = equal_mass((counts[:, totals > 0] / totals[totals > 0]).sum(axis=1), knots)
    pixels = np.bincount(group, counts.sum(axis=1))
    used = pixels > 0
    pixels = pixels[used]
    centers = np.bincount(group, counts.sum(axis=1) * values)[used] / pixels
    rates = np.bincount(group, counts[:, 1])[used] / pixels
    fitted = isotonic_regression(rates, weights=pixels).x
    return Calibration(tuple(centers.tolist()), tuple(np.clip(fitted, 0, 1).tolist()))
