"""The definition, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def calibrate_reference(
    error_logit: npt.NDArray[np.floating],
    logits: Sequence[float] | npt.NDArray[np.floating],  # [n]
    probabilities: Sequence[float] | npt.NDArray[np.floating],  # [n]
) -> npt.NDArray[np.float64]:
    """Error probability, of the shape of the error logits: linear between the knots, constant beyond the ends.

    At a logit that several knots share it is that of the last of them. A NaN stays one.

    Args:
        error_logit: Of any shape.
        logits: Of the knots, never decreasing.
        probabilities: Of the knots.
    """
    values = np.asarray(error_logit, np.float64)
    return np.where(np.isnan(values), np.nan, np.interp(values, logits, probabilities))
