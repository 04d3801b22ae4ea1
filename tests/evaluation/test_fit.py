"""The calibration map: what it says is what happens."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from errseg_rt.evaluation.error_scores import Reliability
from errseg_rt.evaluation.fit import KNOTS, fit_calibration, fit_histogram
from errseg_rt.evaluation.histogram import ErrorHistogram


def synthetic(rate, count=200_000, seed=0):
    """Error logits, and errors that happen at a known rate of them."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(scale=2, size=count).astype(np.float32)
    return logit, rng.random(count) < rate(logit)


@pytest.mark.parametrize(
    "rate",
    [expit, lambda x: 0.05 * expit(x), lambda x: np.clip(0.1 * x, 0, 0.5)],
    ids=["calibrated", "overstated", "kinked"],
)
def test_map_equals_the_known_rates(rate) -> None:
    logit, wrong = synthetic(rate)
    calibration = fit_calibration(logit, wrong)
    assert len(calibration.logits) == KNOTS
    # Between the knots the map is linear and the groups are narrow; chance moves a knot by sqrt(p (1 - p) / n).
    at = np.linspace(*np.quantile(logit, [0.01, 0.99]), 200)
    wanted = rate(at)
    pixels = len(logit) / (4 * KNOTS)
    assert (np.abs(calibration(at) - wanted) <= 4.5 * np.sqrt(wanted * (1 - wanted) / pixels) + 5e-3).all()


def test_knots_are_groups_of_equal_mass_of_both_kinds() -> None:
    logit, wrong = synthetic(lambda x: 0.1 * expit(x), count=20_000)
    calibration = fit_calibration(logit, wrong, knots=8)
    order = np.argsort(logit)
    mass = np.where(wrong, 1 / wrong.sum(), 1 / (~wrong).sum())[order]
    group = np.minimum((mass.cumsum() - mass / 2) / 2 * 8, 7).astype(int)
    parts = [order[group == index] for index in range(8)]
    np.testing.assert_allclose(calibration.logits, [logit[part].mean(dtype=np.float64) for part in parts], atol=1e-6)
    rates, sizes = [wrong[part].mean() for part in parts], [len(part) for part in parts]
    wanted = IsotonicRegression().fit_transform(range(8), rates, sample_weight=sizes)
    np.testing.assert_allclose(calibration.probabilities, wanted, atol=1e-9)


def test_rare_errors_have_knots_of_their_own() -> None:
    logit, wrong = synthetic(lambda x: expit(3 * (x - 5)), count=100_000)
    assert wrong.mean() < 0.02
    calibration = fit_calibration(logit, wrong)
    # Even groups of pixels would end with a mean over the last three hundredths, errors and not.
    assert sum(p > 0.1 for p in calibration.probabilities) > KNOTS / 4
    assert calibration.probabilities[-1] > 0.9


def test_mean_over_the_pixels_is_the_rate_of_errors() -> None:
    logit, wrong = synthetic(lambda x: 0.3 * expit(x))
    calibration = fit_calibration(logit, wrong)
    # Isotonic regression keeps the mean; between knots the map is linear, which a group's width limits.
    assert calibration(logit).mean() == pytest.approx(wrong.mean(), rel=0.02)


def test_unseen_pixels_are_calibrated() -> None:
    rate = lambda x: 0.2 * expit(2 * x)  # noqa: E731
    calibration = fit_calibration(*synthetic(rate, seed=1))
    logit, wrong = synthetic(rate, seed=2)
    counts = np.stack([~wrong, wrong], axis=1).astype(np.int64)
    assert Reliability.of(calibration(logit).astype(np.float64), counts).ece < 0.005


@pytest.mark.parametrize("seed", range(5))
def test_map_never_falls(seed) -> None:
    rng = np.random.default_rng(seed)
    logit, wrong = rng.normal(size=500), rng.random(500) < 0.3  # errors that know nothing of the logit
    calibration = fit_calibration(logit, wrong)
    line = calibration(np.linspace(-10, 10, 1001))
    assert (np.diff(line) >= 0).all()
    assert 0 <= line.min() <= line.max() <= 1
    assert len(set(calibration.probabilities)) < len(calibration.probabilities)


def test_map_is_constant_beyond_its_ends() -> None:
    calibration = fit_calibration(*synthetic(expit, 5000))
    low, high = calibration(np.array([-1e6, 1e6]))
    assert (low, high) == pytest.approx((calibration.probabilities[0], calibration.probabilities[-1]))


def test_bins_give_the_map_of_their_pixels() -> None:
    logit, wrong = synthetic(lambda x: 0.3 * expit(x))
    histogram = ErrorHistogram()
    for part in np.array_split(np.arange(len(logit)), 7):
        histogram.add(logit[part], wrong[part])
    at = np.linspace(-5, 5, 300)
    np.testing.assert_allclose(fit_histogram(histogram)(at), fit_calibration(logit, wrong)(at), rtol=0, atol=1e-3)


def test_equal_logits_share_a_knot() -> None:
    saturated = np.float32(np.log(1e-6))
    logit = np.concatenate([np.full(9001, saturated, np.float32), np.linspace(0, 1, 999, dtype=np.float32)])
    wrong = np.zeros(10_000, bool)
    wrong[:90] = True
    wrong[9001:] = True
    calibration = fit_calibration(logit, wrong)
    assert calibration.logits[0] == pytest.approx(saturated)
    assert calibration(np.array([saturated]))[0] == pytest.approx(90 / 9001, rel=1e-6)


@pytest.mark.parametrize(("wrong", "probability"), [(True, 1.0), (False, 0.0)])
def test_one_pixel_is_enough(wrong, probability) -> None:
    calibration = fit_calibration(np.array([0.5]), np.array([wrong]))
    assert calibration.logits == (0.5,)
    assert calibration.probabilities == (probability,)


def test_fewer_pixels_than_knots() -> None:
    calibration = fit_calibration(np.array([3.0, 1.0, 2.0]), np.array([True, False, False]), knots=10)
    assert calibration.logits == (1.0, 2.0, 3.0)
    assert calibration.probabilities == (0.0, 0.0, 1.0)


def test_all_logits_equal() -> None:
    calibration = fit_calibration(np.full(100, 2.0), np.arange(100) < 25)
    assert calibration.logits == (2.0,)
    assert calibration.probabilities == pytest.approx((0.25,))


@pytest.mark.parametrize(("logits", "errors"), [(0, 0), (3, 2), (0, 1)])
def test_pixels_must_pair(logits, errors) -> None:
    with pytest.raises(ValueError, match=r"wanted pixels in pairs: logit.shape = "):
        fit_calibration(np.zeros(logits), np.zeros(errors, bool))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_must_be_finite(value) -> None:
    with pytest.raises(ValueError, match="1 of 2 logits are not finite"):
        fit_calibration(np.array([0, value]), np.array([True, False]))


def test_bins_must_hold_pixels() -> None:
    with pytest.raises(ValueError, match="no pixel to fit a calibration on"):
        fit_histogram(ErrorHistogram())
