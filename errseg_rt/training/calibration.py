"""Fitting the calibration map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from errseg_rt.calibration import Calibration


def fit_calibration(error_logit: npt.NDArray[np.floating], wrong: npt.NDArray[np.bool_], bins: int = 32) -> Calibration:
    """Isotonic regression of the error rate over equal-mass bins of the error logit.

    Args:
        error_logit: Of valid pixels, on frames that the semantic branch did not learn from, `[N]`.
        wrong: Whether the semantic label was wrong, `[N]`.
        bins: Number of bins, where the logits differ enough.

    Raises:
        ValueError: There is no pixel, or the arrays do not pair.
    """
    if error_logit.shape != wrong.shape or not error_logit.size:
        raise ValueError(f"wanted pixels in pairs: {error_logit.shape = }, {wrong.shape = }")
    order = np.argsort(error_logit, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    centers = np.array([error_logit[part].mean(dtype=np.float64) for part in parts])
    rates = np.array([wrong[part].mean() for part in parts])
    sizes = np.array([part.size for part in parts], np.float64)
    # Bins of equal logits (where it saturates) share a knot.
    knots, member = np.unique(centers, return_inverse=True)
    mass = np.bincount(member, sizes)
    fitted = isotonic_regression(np.bincount(member, sizes * rates) / mass, weights=mass).x
    return Calibration(tuple(knots.tolist()), tuple(np.clip(fitted, 0, 1).tolist()))
