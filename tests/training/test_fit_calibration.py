"""The calibration map: what it says is what happens."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.training.calibration import fit_calibration


def synthetic(rate, count=200_000, seed=0):
    """Error logits, and errors that happen at a known rate of them."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(scale=2, size=count).astype(np.float32)
    return logit, rng.random(count) < rate(logit)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    "rate",
    [sigmoid, lambda x: 0.05 * sigmoid(x), lambda x: np.clip(0.1 * x, 0, 0.5)],
    ids=["calibrated", "overstated", "kinked"],
)
def test_map_equals_the_known_rates(rate):
    logit, wrong = synthetic(rate)
    calibration = fit_calibration(logit, wrong)
    assert len(calibration.logits) == 32
    # A knot is the mean of a bin: six thousand pixels, whose rates it averages exactly but for chance.
    bins = np.array_split(np.sort(logit), 32)
    wanted = np.array([rate(part.astype(np.float64)).mean() for part in bins])
    sizes = np.array([part.size for part in bins])
    np.testing.assert_allclose(calibration.logits, [part.mean(dtype=np.float64) for part in bins], rtol=0, atol=1e-6)
    error = np.abs(calibration.probabilities - wanted)
    assert (error <= 4.5 * np.sqrt(wanted * (1 - wanted) / sizes) + 1e-3).all()


def test_mean_over_the_pixels_is_the_rate_of_errors():
    logit, wrong = synthetic(lambda x: 0.3 * sigmoid(x))
    calibration = fit_calibration(logit, wrong)
    # Isotonic regression keeps the mean; between knots the map is linear, which a bin's width limits.
    assert calibration(logit).mean() == pytest.approx(wrong.mean(), rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_map_never_falls(seed):
    rng = np.random.default_rng(seed)
    logit, wrong = rng.normal(size=500), rng.random(500) < 0.3  # errors that know nothing of the logit
    calibration = fit_calibration(logit, wrong)
    line = calibration(np.linspace(-10, 10, 1001))
    assert (np.diff(line) >= 0).all()
    assert 0 <= line.min() <= line.max() <= 1
    assert len(set(calibration.probabilities)) < len(calibration.probabilities)


def test_map_is_constant_beyond_its_ends():
    calibration = fit_calibration(*synthetic(sigmoid, 5000))
    low, high = calibration(np.array([-1e6, 1e6]))
    assert (low, high) == pytest.approx((calibration.probabilities[0], calibration.probabilities[-1]))


def test_bins_of_equal_logits_share_a_knot():
    saturated = np.float32(np.log(1e-6))
    logit = np.concatenate([np.full(9001, saturated, np.float32), np.linspace(0, 1, 999, dtype=np.float32)])
    wrong = np.zeros(10_000, bool)
    wrong[:90] = True
    wrong[9001:] = True
    calibration = fit_calibration(logit, wrong)
    assert np.sum(np.isclose(calibration.logits, saturated)) == 1
    # 28 whole bins of 313 or 312 pixels hold the saturated logit alone.
    sizes = [part.size for part in np.array_split(logit, 32)]
    assert calibration(np.array([saturated]))[0] == pytest.approx(90 / sum(sizes[:28]), rel=1e-6)


@pytest.mark.parametrize(("wrong", "probability"), [(True, 1.0), (False, 0.0)])
def test_one_pixel_is_enough(wrong, probability):
    calibration = fit_calibration(np.array([0.5]), np.array([wrong]))
    assert calibration.logits == (0.5,)
    assert calibration.probabilities == (probability,)


def test_fewer_pixels_than_bins():
    calibration = fit_calibration(np.array([3.0, 1.0, 2.0]), np.array([True, False, False]), bins=10)
    assert calibration.logits == (1.0, 2.0, 3.0)
    assert calibration.probabilities == (0.0, 0.0, 1.0)


def test_all_logits_equal():
    calibration = fit_calibration(np.full(100, 2.0), np.arange(100) < 25)
    assert calibration.logits == (2.0,)
    assert calibration.probabilities == pytest.approx((0.25,))


@pytest.mark.parametrize(("logits", "errors"), [(0, 0), (3, 2), (0, 1)])
def test_pixels_must_pair(logits, errors):
    with pytest.raises(ValueError, match=r"wanted pixels in pairs: error_logit.shape = "):
        fit_calibration(np.zeros(logits), np.zeros(errors, bool))
