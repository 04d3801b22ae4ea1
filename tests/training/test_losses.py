"""Eq. 2 and eq. 3, against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from errseg_rt.classes import IGNORE
from errseg_rt.training.losses import detail_loss, error_loss


def probabilities(logits):
    exponents = [math.exp(value - max(logits)) for value in logits]
    return [value / sum(exponents) for value in exponents]


def error_loss_by_definition(error_logit, logits, truth, rho=0.95, easy=1.0, hard=1.5):
    losses = []
    for image in range(len(truth)):
        terms, errors, valid = [], 0, 0
        for place in np.ndindex(truth.shape[1:]):
            if truth[image][place] == IGNORE:
                continue
            valid += 1
            p_sb = probabilities(logits[image][(slice(None), *place)].tolist())
            p = 1 / (1 + math.exp(-error_logit[image, 0][place]))
            if p_sb.index(max(p_sb)) != truth[image][place]:
                errors += 1
                terms.append(("wrong", (hard if max(p_sb) > rho else easy) * math.log(p)))
            else:
                terms.append(("correct", math.log(1 - p)))
        weight = {"wrong": 1.0, "correct": errors / max(valid, 1)}
        losses.append(-sum(weight[kind] * value for kind, value in terms) / max(valid, 1))
    return sum(losses) / len(losses)


def detail_loss_by_definition(detail_logits, error_logit, truth, threshold):
    terms = []
    for image in range(len(truth)):
        for place in np.ndindex(truth.shape[1:]):
            p = 1 / (1 + math.exp(-error_logit[image, 0][place]))
            if p > threshold and truth[image][place] != IGNORE:
                terms.append(
                    -math.log(probabilities(detail_logits[image][(slice(None), *place)].tolist())[truth[image][place]])
                )
    return sum(terms) / max(len(terms), 1)


def operands(classes=4, size=(5, 7), gain=3.0, void=0.2, seed=0):
    rng = np.random.default_rng(seed)
    error_logit = rng.normal(scale=2, size=(3, 1, *size))
    logits = rng.normal(scale=gain, size=(3, classes, *size))
    truth = rng.integers(0, classes, (3, *size))
    truth[rng.random(truth.shape) < void] = IGNORE
    return error_logit, logits, truth


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


# float64 throughout, but for w3: torch divides two counts in float32.
CLOSE = {"rel": 1e-7, "abs": 1e-12}


@pytest.mark.parametrize("gain", [0.5, 3.0, 10.0], ids=["doubtful", "mixed", "sure"])
@pytest.mark.parametrize("classes", [2, 4, 11])
def test_error_loss_is_eq_2(classes, gain):
    inputs = operands(classes, gain=gain, seed=classes)
    assert error_loss(*tensors(*inputs)).item() == pytest.approx(error_loss_by_definition(*inputs), **CLOSE)


@pytest.mark.parametrize(("rho", "easy", "hard"), [(0.5, 1.0, 1.5), (0.95, 2.0, 0.25), (1.0, 1.0, 9.0)])
def test_error_loss_takes_its_weights(rho, easy, hard):
    inputs = operands()
    found = error_loss(*tensors(*inputs), rho=rho, easy_weight=easy, hard_weight=hard).item()
    assert found == pytest.approx(error_loss_by_definition(*inputs, rho, easy, hard), **CLOSE)


def test_an_error_is_hard_only_above_rho():
    p = 0.75
    logits = torch.tensor([math.log(p), math.log(1 - p)], dtype=torch.float64).view(1, 2, 1, 1)
    wrong, unsure = torch.ones(1, 1, 1, dtype=torch.int64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    confidence = logits.softmax(1).max().item()
    for rho, weight in ((confidence - 1e-9, 1.5), (confidence, 1.0), (confidence + 1e-9, 1.0)):
        found = error_loss(unsure, logits, wrong, rho=rho).item()
        assert found == pytest.approx(weight * math.log(2), **CLOSE)


def test_without_errors_the_loss_is_zero():
    error_logit, logits, _ = operands()
    found = error_loss(*tensors(error_logit, logits, logits.argmax(1)))
    assert found.item() == 0


def test_with_errors_only_no_correct_term_is_left():
    error_logit, logits, _ = operands(gain=0.1)
    found = error_loss(*tensors(error_logit, logits, (logits.argmax(1) + 1) % 4)).item()
    assert found == pytest.approx(np.log1p(np.exp(-error_logit)).mean(), **CLOSE)


def test_error_loss_balances_each_image_by_its_own_errors():
    inputs = operands()
    alone = [error_loss(*tensors(*(part[i : i + 1] for part in inputs))).item() for i in range(3)]
    assert len({round(loss, 6) for loss in alone}) == 3
    assert error_loss(*tensors(*inputs)).item() == pytest.approx(np.mean(alone), **CLOSE)


def test_error_loss_does_not_see_void():
    error_logit, logits, truth = operands(void=0.3)
    before = error_loss(*tensors(error_logit, logits, truth)).item()
    void = truth == IGNORE
    error_logit[:, 0][void] = 50
    logits.transpose(0, 2, 3, 1)[void] = (9, 0, 0, 0)
    assert error_loss(*tensors(error_logit, logits, truth)).item() == before


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_error_loss_and_its_gradient_stay_finite_where_a_sigmoid_saturates(logit):
    _, logits, truth = operands()
    error_logit = torch.full((3, 1, 5, 7), logit, dtype=torch.float32, requires_grad=True)
    loss = error_loss(error_logit, torch.from_numpy(logits).float(), torch.from_numpy(truth))
    loss.backward()
    assert loss.isfinite()
    assert error_logit.grad.isfinite().all()


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("classes", [2, 4, 11])
def test_detail_loss_is_eq_3(classes, threshold):
    error_logit, logits, truth = operands(classes, seed=classes)
    wanted = detail_loss_by_definition(logits, error_logit, truth, threshold)
    found = detail_loss(*tensors(logits, error_logit, truth), threshold).item()
    assert found == pytest.approx(wanted, **CLOSE)


def test_detail_loss_only_sees_valid_flagged_pixels():
    error_logit, logits, truth = operands()
    detail = torch.from_numpy(logits).requires_grad_()
    detail_loss(detail, *tensors(error_logit, truth), 0.5).backward()
    counted = (error_logit[:, 0] > 0) & (truth != IGNORE)
    assert 0 < counted.sum() < counted.size
    np.testing.assert_array_equal((detail.grad != 0).any(dim=1).numpy(), counted)


def test_detail_loss_is_zero_with_a_finite_gradient_where_nothing_is_flagged():
    error_logit, logits, truth = operands()
    detail = torch.from_numpy(logits).requires_grad_()
    loss = detail_loss(detail, *tensors(error_logit - 100, truth), 0.5)
    loss.backward()
    assert loss.item() == 0
    assert (detail.grad == 0).all()


def test_void_everywhere_is_zero_with_a_finite_gradient():
    error_logit, logits, truth = operands(void=1)
    assert (truth == IGNORE).all()
    error = torch.from_numpy(error_logit).requires_grad_()
    detail = torch.from_numpy(logits).requires_grad_()
    losses = [
        error_loss(error, *tensors(logits, truth)),
        detail_loss(detail, *tensors(error_logit + 100, truth), 0.5),
    ]
    sum(losses).backward()
    assert [loss.item() for loss in losses] == [0, 0]
    assert (error.grad == 0).all()
    assert (detail.grad == 0).all()


def test_a_void_image_counts_as_zero_in_the_mean():
    error_logit, logits, truth = operands()
    alone = error_loss(*tensors(error_logit[:1], logits[:1], truth[:1])).item()
    truth[1:] = IGNORE
    assert error_loss(*tensors(error_logit, logits, truth)).item() == pytest.approx(alone / 3, **CLOSE)


def test_absent_classes_do_no_harm():
    error_logit, logits, _ = operands(classes=11)
    truth = np.full((3, 5, 7), 2)
    found = error_loss(*tensors(error_logit, logits, truth)).item()
    assert found == pytest.approx(error_loss_by_definition(error_logit, logits, truth), **CLOSE)
    found = detail_loss(*tensors(logits, error_logit, truth), 0.5).item()
    assert found == pytest.approx(detail_loss_by_definition(logits, error_logit, truth, 0.5), **CLOSE)
