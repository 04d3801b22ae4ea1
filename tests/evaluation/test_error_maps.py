"""Errors of a frame, and the baselines: against their formulas, and where probabilities have no digits left."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit, softmax
from scipy.stats import entropy

from errseg_rt.evaluation.error_maps import BASELINES, GridErrors, baseline_logits


@pytest.mark.parametrize("classes", [2, 3, 11])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_the_formulas(classes, dtype) -> None:
    logits = (2 * np.random.default_rng(classes).standard_normal((classes, 13, 7))).astype(dtype)
    p = softmax(logits.astype(np.float64), axis=0)
    second, top = np.sort(p, axis=0)[-2:]
    wanted = {"max_softmax": 1 - top, "entropy": entropy(p, axis=0) / np.log(classes), "margin": 1 - (top - second)}
    found = baseline_logits(logits)
    assert tuple(found) == BASELINES
    for name in BASELINES:
        # The formulas lose digits near 0 and 1; the functions under test do not.
        np.testing.assert_allclose(found[name], logit(wanted[name]), rtol=0, atol=1e-9, err_msg=name)


def test_two_classes_far_apart_in_closed_form() -> None:
    gaps = np.array([50.0, 200.0, 700.0])
    found = baseline_logits(np.stack([np.zeros(3), -gaps]))
    np.testing.assert_allclose(found["max_softmax"], -gaps, rtol=1e-12)
    np.testing.assert_allclose(found["margin"], np.log(2) - gaps, rtol=1e-12)
    np.testing.assert_allclose(found["entropy"], np.log1p(gaps) - gaps - np.log(np.log(2)), rtol=1e-12)


def test_doubt_grows_in_order_where_probabilities_saturate() -> None:
    gaps = np.linspace(40, 600, 50)
    for scores in baseline_logits(np.stack([np.zeros(50), -gaps, -gaps - 1])).values():
        assert np.isfinite(scores).all()
        assert (np.diff(scores) < 0).all()


def test_ends_are_infinite_and_never_nan() -> None:
    tie, sure = baseline_logits(np.zeros((3, 1))), baseline_logits(np.array([[0.0], [-1e4]]))
    assert tie["margin"] == np.inf
    assert tie["max_softmax"] == pytest.approx(np.log(2))
    assert tie["entropy"] > 30  # the entropy's greatest value, but for rounding
    assert all(scores == -np.inf for scores in sure.values())


def test_classes_may_be_renamed() -> None:
    logits = np.random.default_rng(1).standard_normal((5, 40))
    for a, b in zip(baseline_logits(logits).values(), baseline_logits(logits[::-1]).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_no_pixel() -> None:
    assert all(scores.shape == (0,) for scores in baseline_logits(np.empty((4, 0), np.float32)).values())


def test_hard_errors_are_sure_and_wrong(sample) -> None:
    truth, branches = sample(1)
    errors = GridErrors.of(truth, branches)
    largest = softmax(branches.logits[:, errors.valid].astype(np.float64), axis=0).max(axis=0)
    np.testing.assert_array_equal(errors.hard, errors.wrong & (largest > 0.95))
    assert errors.hard.any()
    assert (errors.wrong & ~errors.hard).any()
