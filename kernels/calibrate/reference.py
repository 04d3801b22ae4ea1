"""The definition, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Knots = Sequence[float] | npt.NDArray[np.floating]


def calibrate_reference(
    error_logit: npt.NDArray[np.floating],
    logits: Knots,  # [n]
    probabilities: Knots,  # [n]
) -> Values:
    """Error probability, of the shape of the error logits: linear between the knots, constant beyond the ends.

    At a logit that several knots share it is that of the last of them. A NaN stays one.

    Args:
        error_logit: Of any shape.
        logits: Of the knots, never decreasing.
        probabilities: Of the knots.
    """
    values = np.asarray(error_logit, np.float64)
    return np.where(np.isnan(values), np.nan, np.interp(values, logits, probabilities))


def calibrate_final_reference(
    error_logit: npt.NDArray[np.floating],  # [h, w]
    knots: tuple[Knots, Knots],
    detail: npt.NDArray[np.floating],  # [C, h, w] or [n, C]
    where: npt.NDArray[np.bool_] | npt.NDArray[np.int32],  # [h, w]
    detail_knots: tuple[Knots, Knots],
    above: float = -np.inf,
) -> Values:
    """Error probability of the final label, `[h, w]`: by the detail branch's own doubt where it gave the label.

    Args:
        error_logit: Of the error-prediction branch; it counts where no detail logits do.
        knots: Logits and probabilities of its map, as `calibrate_reference` takes them.
        detail: Detail logits, of every pixel or of some, as `fuse_labels` takes them.
        where: Which pixels take theirs from `detail`, likewise.
        detail_knots: Those of the map of the doubt, see `doubt_reference`.
        above: The error logit that pixels exceed for which that map was made; others have the first one.
    """
    probability = calibrate_reference(error_logit, *knots)
    flagged = (where if where.dtype == bool else where >= 0) & (error_logit > above)
    logits = detail[:, flagged] if where.dtype == bool else detail[where[flagged]].T
    probability[flagged] = calibrate_reference(doubt_reference(logits), *detail_knots)
    return probability


def doubt_reference(
    logits: npt.NDArray[np.floating],  # [C, ...]
) -> Values:  # [...]
    """The logit of 1 - max softmax, log sum exp(z_c - z_top) over all classes but the top one.

    It is exact also where max softmax is 1 in float64, and -inf below about -745. A NaN among the logits makes it one.
    """
    if not logits.size:
        return np.zeros(logits.shape[1:])
    shifted = logits.astype(np.float64) - logits.max(axis=0)
    powers = np.exp(shifted)
    np.put_along_axis(powers, shifted.argmax(axis=0)[None], 0, axis=0)
    others = powers.sum(axis=0)
    with np.errstate(divide="ignore"):
        return np.where(np.isnan(shifted).any(axis=0), np.nan, np.log(others))
