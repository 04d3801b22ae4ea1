"""Operands of calibration where a detail branch gave some labels, and what may come of them."""

from __future__ import annotations

import numpy as np

from errseg_rt.kernels.calibrate.reference import calibrate_final_reference, calibrate_reference, doubt_reference

KINDS = ("map", "rows")


def detail_of(rng, grid, classes, kind, share=0.4, gain=4.0):
    """Detail logits and where they count, as a map or as rows that are out of order, some of them nobody's."""
    logits = gain * rng.standard_normal((classes, *grid))
    flagged = rng.random(grid) < share
    if kind == "map":
        return logits.astype(np.float32), flagged
    places = rng.permutation(flagged.size + 2)[: int(flagged.sum())].astype(np.int32)
    rows = np.full((flagged.size + 2, classes), np.nan, np.float32)
    rows[places] = logits[:, flagged].T
    where = np.full(grid, -1, np.int32)
    where[flagged] = places
    return rows, where


def assert_final(found, error_logit, knots, detail, where, detail_knots, rounding, above=-np.inf, off=4e-6):
    """Hold error probabilities of final labels against the definition.

    Args:
        above: The error logit that pixels exceed for which the map of the doubt was made.
        off: How far, as a share of it and of 1, a doubt in float32 may be off: powers, their sum and its logarithm are
            each rounded. The map is monotone, so that the probability lies between those of the doubts at both ends.
    """
    plain = calibrate_reference(error_logit, *knots)
    flagged = (where if where.dtype == bool else where >= 0) & (error_logit > above)
    np.testing.assert_allclose(found[~flagged], plain[~flagged], rtol=0, atol=rounding)
    doubt = doubt_reference(detail[:, flagged] if where.dtype == bool else detail[where[flagged]].T)
    is_known, reach = ~np.isnan(doubt), off * (1 + np.abs(np.where(np.isinf(doubt), 0, doubt)))
    low, high = (calibrate_reference(doubt + each, *detail_knots) for each in (-reach, reach))
    np.testing.assert_array_equal(np.isnan(found[flagged]), ~is_known)
    assert (found[flagged][is_known] >= low[is_known] - rounding).all()
    assert (found[flagged][is_known] <= high[is_known] + rounding).all()
    wanted = calibrate_final_reference(error_logit, knots, detail, where, detail_knots, above)
    np.testing.assert_array_equal(wanted[flagged], calibrate_reference(doubt, *detail_knots))
    np.testing.assert_array_equal(wanted[~flagged], plain[~flagged])
