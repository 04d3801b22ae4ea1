"""The map from error logit to error probability, against its definition."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from errseg_rt.bundle.calibration import Calibration

KNOTS = Calibration((-3.0, -1.0, 0.5, 4.0), (0.01, 0.1, 0.1, 0.8))


def by_definition(calibration: Calibration, logit: float) -> float:
    """Between two knots on the line through them; beyond the ends, the end's value."""
    xs, ys = calibration.logits, calibration.probabilities
    if logit <= xs[0]:
        return ys[0]
    for (left, right), (low, high) in zip(pairwise(xs), pairwise(ys), strict=True):
        if logit <= right:
            return low + (high - low) * (logit - left) / (right - left)
    return ys[-1]


@pytest.mark.parametrize("calibration", [KNOTS, Calibration((0.0,), (0.3,))], ids=["four_knots", "one_knot"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_is_piecewise_linear_and_constant_beyond_its_ends(calibration, dtype) -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(13, 7)).astype(dtype)
    wanted = [[by_definition(calibration, float(logit)) for logit in row] for row in logits]
    given = calibration(logits)
    assert given.dtype == np.float32
    # One rounding to float32 of values below 1.
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-7)


def test_knots_are_met_exactly() -> None:
    np.testing.assert_array_equal(KNOTS(np.array(KNOTS.logits)), np.float32(KNOTS.probabilities))


def test_extreme_logits_give_the_ends() -> None:
    given = KNOTS(np.array([-1e30, -np.inf, np.inf, 1e30]))
    np.testing.assert_array_equal(given, np.float32([0.01, 0.01, 0.8, 0.8]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_stays_nan(dtype) -> None:
    given = KNOTS(np.array([0.5, np.nan], dtype))
    np.testing.assert_array_equal(given, np.float32([0.1, np.nan]))


def test_use_changes_neither_its_equality_nor_its_fields() -> None:
    used, fresh = Calibration(KNOTS.logits, KNOTS.probabilities), Calibration(KNOTS.logits, KNOTS.probabilities)
    used(np.zeros((2, 3), np.float32))
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert asdict(used) == asdict(fresh)


def test_never_decreases() -> None:
    assert (np.diff(KNOTS(np.linspace(-6, 6, 1001))) >= 0).all()


@pytest.mark.parametrize(
    ("logits", "probabilities", "message"),
    [
        ((), (), "knots must pair"),
        ((0.0, 1.0), (0.5,), "knots must pair"),
        ((0.0, 0.0), (0.1, 0.2), "logits of the knots must increase"),
        ((1.0, 0.0), (0.1, 0.2), "logits of the knots must increase"),
        ((0.0, float("nan")), (0.1, 0.2), "logits of the knots must increase"),
        ((0.0, float("inf")), (0.1, 0.2), "logits of the knots must increase"),
        ((0.0, 1.0), (0.2, 0.1), "must not decrease"),
        ((0.0, 1.0), (-0.1, 0.1), "must not decrease"),
        ((0.0, 1.0), (0.1, 1.1), "must not decrease"),
        ((0.0, 1.0), (0.1, float("nan")), "must not decrease"),
        ((0.0, 1.0), (float("nan"), 0.1), "must not decrease"),
    ],
)
def test_knots_that_are_no_monotone_map(logits, probabilities, message) -> None:
    with pytest.raises(ValueError, match=message):
        Calibration(logits, probabilities)
