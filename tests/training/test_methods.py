"""The method and its comparisons: what flags a pixel, and what becomes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from errseg_rt.training.methods import answer, flagged_by
from errseg_rt.training.recipe_learning import MethodConfig


def outputs(seed=0, gain=2.0):
    rng = np.random.default_rng(seed)
    logits, detail = rng.normal(scale=gain, size=(2, 2, 5, 7, 9))
    return logits, rng.normal(scale=3, size=(2, 1, 7, 9)), detail


def flagged(method, threshold=0.7, **changed):
    logits, error_logit, _ = outputs(**changed)
    found = flagged_by(method, threshold, torch.from_numpy(logits), torch.from_numpy(error_logit))
    assert (found.shape, found.dtype) == ((2, 7, 9), torch.bool)
    return found.numpy(), softmax(logits, axis=1), error_logit[:, 0]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_error_branch_selects_by_eq_4(threshold):
    found, _, error_logit = flagged(MethodConfig(), threshold)
    np.testing.assert_array_equal(found, 1 / (1 + np.exp(-error_logit)) > threshold)
    assert 0 < found.sum() < found.size


@pytest.mark.parametrize("limit", [0.0, 0.3, 1.0, np.log(5)])
def test_entropy_in_nats_above_the_limit(limit):
    found, p_sb, _ = flagged(MethodConfig(selector="entropy", limit=limit))
    np.testing.assert_array_equal(found, entropy(p_sb, axis=1) > limit)
    assert found.all() == (limit == 0)
    assert found.any() == (limit < np.log(5))


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.3, 1.0])
def test_confidence_not_above_one_minus_the_limit(limit):
    # Layer cascading hands on what is at most rho = 1 - limit sure.
    found, p_sb, _ = flagged(MethodConfig(selector="confidence", limit=limit))
    np.testing.assert_array_equal(found, p_sb.max(axis=1) <= 1 - limit)
    assert found.any() == (limit < 1)


def test_everywhere():
    assert flagged(MethodConfig(selector="everywhere"))[0].all()


@pytest.mark.parametrize("selector", ["entropy", "confidence"])
def test_probabilities_that_saturate_select_nothing(selector):
    # In float32 all other classes' probabilities are 0, whose logarithm is not finite.
    logits = torch.zeros(1, 5, 2, 3)
    logits[:, 1] = 1e4
    method = MethodConfig(selector=selector, limit=0.05)
    assert not flagged_by(method, 0.7, logits, torch.zeros(1, 1, 2, 3)).any()


def test_replacing_gives_the_detail_branch():
    logits, _, detail = map(torch.from_numpy, outputs())
    assert answer(MethodConfig(), logits, detail) is detail


@pytest.mark.parametrize("gain", [1.0, 100.0], ids=["mixed", "sure"])
def test_average_is_that_of_the_probabilities(gain):
    logits, _, detail = outputs(gain=gain)
    found = answer(MethodConfig(fusion="average"), *map(torch.from_numpy, (logits, detail)))
    wanted = (softmax(logits, axis=1) + softmax(detail, axis=1)) / 2
    np.testing.assert_allclose(found.softmax(dim=1).numpy(), wanted, rtol=0, atol=1e-12)
    # Not that of the logits, which is sharper.
    assert np.abs(softmax((logits + detail) / 2, axis=1) - wanted).max() > 0.1
