"""Eq. 2, eq. 3 and the losses that choose hard pixels, against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.training.losses import (
    bootstrapped_loss,
    cross_entropy,
    detail_loss,
    error_loss,
    loss_rank_mining,
    near_boundary,
    wrong_pixels,
)


def probabilities(logits):
    exponents = [math.exp(value - max(logits)) for value in logits]
    return [value / sum(exponents) for value in exponents]


def error_loss_by_definition(error_logit, logits, truth, rho=0.95, easy=1.0, hard=1.5, correct=0.0):
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
        weight = {"wrong": 1.0, "correct": correct or errors / max(valid, 1)}
        losses.append(-sum(weight[kind] * value for kind, value in terms) / max(valid, 1))
    return sum(losses) / len(losses)


def true_probabilities(logits, truth):
    """Probability of its true class, of each valid pixel."""
    places = zip(*np.nonzero(truth != IGNORE), strict=True)
    return [probabilities(logits[(i, slice(None), *place)].tolist())[truth[(i, *place)]] for i, *place in places]


def detail_loss_by_definition(detail_logits, flagged, truth):
    terms = [-math.log(p) for p in true_probabilities(detail_logits, np.where(flagged, truth, IGNORE))]
    return sum(terms) / max(len(terms), 1)


def hardest_by_definition(logits, truth, share):
    """Loss-rank mining: the mean loss over the share of the pixels that have the highest."""
    losses = sorted((-math.log(p) for p in true_probabilities(logits, truth)), reverse=True)
    kept = losses[: math.ceil(share * len(losses))]
    return sum(kept) / max(len(kept), 1)


def bootstrapped_by_definition(logits, truth, probability, keep):
    """`-sum_i 1{p_i < t} log p_i / sum_i 1{p_i < t}`, with t raised until enough pixels are below it."""
    found = sorted(true_probabilities(logits, truth))
    below = [p for p in found if p < probability]
    kept = max(below, found[: math.ceil(keep * len(found))], key=len)
    return -sum(map(math.log, kept)) / max(len(kept), 1)


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


@pytest.mark.parametrize("correct", [0.04, 1.0])
def test_correct_pixels_may_weigh_the_same_in_every_image(correct):
    inputs = operands()
    found = error_loss(*tensors(*inputs), correct_weight=correct).item()
    assert found == pytest.approx(error_loss_by_definition(*inputs, correct=correct), rel=1e-6)


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


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("classes", [2, 4, 11])
def test_detail_loss_is_eq_3(classes, share):
    _, logits, truth = operands(classes, seed=classes)
    flagged = np.random.default_rng(1).random(truth.shape) < share
    wanted = detail_loss_by_definition(logits, flagged, truth)
    assert detail_loss(*tensors(logits, flagged, truth)).item() == pytest.approx(wanted, **CLOSE)


def test_void_makes_no_boundary():
    truth = torch.full((1, 7, 9), IGNORE)
    truth[0, :, :4] = 2
    assert not near_boundary(truth).any()
    assert not near_boundary(torch.full((1, 3, 3), IGNORE)).any()
    truth[0, :, 8] = 0
    assert not near_boundary(truth).any()  # the two are too far apart
    assert near_boundary(truth, reach=3)[0, :, 5:6].all()


def test_detail_loss_of_everything_is_plain_cross_entropy():
    _, logits, truth = operands()
    wanted = F.cross_entropy(*tensors(logits, truth), ignore_index=IGNORE).item()
    assert detail_loss(*tensors(logits, np.ones_like(truth, bool), truth)).item() == pytest.approx(wanted, **CLOSE)


def test_detail_loss_only_sees_valid_flagged_pixels():
    error_logit, logits, truth = operands()
    flagged = error_logit[:, 0] > 0
    detail = torch.from_numpy(logits).requires_grad_()
    detail_loss(detail, *tensors(flagged, truth)).backward()
    seen = flagged & (truth != IGNORE)
    assert 0 < seen.sum() < seen.size
    np.testing.assert_array_equal((detail.grad != 0).any(dim=1).numpy(), seen)


def test_where_nothing_is_flagged_the_detail_loss_is_zero_with_a_gradient_of_zero():
    _, logits, truth = operands()
    detail = torch.from_numpy(logits).requires_grad_()
    loss = detail_loss(detail, torch.zeros(truth.shape, dtype=torch.bool), torch.from_numpy(truth))
    loss.backward()
    assert loss.item() == 0
    assert (detail.grad == 0).all()


def counted(loss, logits, truth, *settings):
    """Loss, and the pixels that its gradient reaches."""
    leaf = torch.from_numpy(logits).requires_grad_()
    value = loss(leaf, torch.from_numpy(truth), *settings)
    value.backward()
    return value.item(), (leaf.grad != 0).any(dim=1).numpy()


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("classes", [2, 4, 11])
def test_loss_rank_mining_is_the_mean_of_the_highest_losses(classes, share):
    _, logits, truth = operands(classes, seed=classes)
    found, seen = counted(loss_rank_mining, logits, truth, share)
    assert found == pytest.approx(hardest_by_definition(logits, truth, share), **CLOSE)
    # The very pixels: none that was left out has a higher loss.
    losses = F.cross_entropy(*tensors(logits, truth), ignore_index=IGNORE, reduction="none").numpy()
    valid = truth != IGNORE
    assert seen.sum() == math.ceil(share * valid.sum())
    assert losses[seen].min() >= losses[valid & ~seen].max(initial=0)


@pytest.mark.parametrize("keep", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("probability", [1e-9, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("classes", [2, 11])
def test_bootstrapped_loss_is_its_equation_with_a_floor(classes, probability, keep):
    _, logits, truth = operands(classes, seed=classes)
    found, seen = counted(bootstrapped_loss, logits, truth, probability, keep)
    assert found == pytest.approx(bootstrapped_by_definition(logits, truth, probability, keep), **CLOSE)
    valid = truth != IGNORE
    hard = np.zeros_like(valid)
    hard[valid] = np.array(true_probabilities(logits, truth)) < probability
    assert (seen & hard).sum() == hard.sum()
    assert seen.sum() == max(hard.sum(), math.ceil(keep * valid.sum()))


def test_where_no_pixel_is_hard_the_floor_decides():
    _, logits, truth = operands(gain=0.1)
    assert min(true_probabilities(logits, truth)) > 0.1
    few, many = (counted(bootstrapped_loss, logits, truth, 0.1, keep)[0] for keep in (0.05, 0.5))
    assert few > many > 0


def test_with_every_pixel_they_are_plain_cross_entropy():
    logits, truth = tensors(*operands()[1:])
    wanted = F.cross_entropy(logits, truth, ignore_index=IGNORE).item()
    assert bootstrapped_loss(logits, truth, 1.0, 0.01).item() == pytest.approx(wanted, **CLOSE)
    assert loss_rank_mining(logits, truth, 1.0).item() == pytest.approx(wanted, **CLOSE)


@pytest.mark.parametrize("gain", [0.5, 10.0], ids=["doubtful", "sure"])
@pytest.mark.parametrize("pixels", [1, 7, 20, 1000])
def test_every_crop_keeps_its_hardest_pixels(pixels, gain):
    """Eq. 1 with a threshold of each crop, raised until so many of its pixels are below it (section 3.3)."""
    _, logits, truth = operands(gain=gain)
    truth[2] = IGNORE
    kept = []
    for image in range(3):
        found = sorted(true_probabilities(logits[image : image + 1], truth[image : image + 1]))
        below = [p for p in found if p < 0.4]
        kept += max(below, found[: math.ceil(0.05 * len(found))], found[:pixels], key=len)
    found = bootstrapped_loss(*tensors(logits, truth), 0.4, 0.05, pixels=pixels).item()
    assert found == pytest.approx(-sum(map(math.log, kept)) / len(kept), **CLOSE)


def test_ties_are_cut_to_the_floor():
    # p = 1/4 everywhere: not below 1/4, so that the floor decides; all of it below a little more.
    logits, truth = np.zeros((2, 4, 3, 5)), np.ones((2, 3, 5), np.int64)
    for loss, settings, pixels in (
        (bootstrapped_loss, (0.25, 0.3), 9),
        (bootstrapped_loss, (0.25 + 1e-9, 0.3), 30),
        (loss_rank_mining, (0.5,), 15),
    ):
        found, seen = counted(loss, logits, truth, *settings)
        assert found == pytest.approx(math.log(4), **CLOSE)
        assert seen.sum() == pixels


def every_loss(error_logit, logits, truth, flagged):
    """All losses by name, and the gradients of their sum."""
    leaves = [torch.from_numpy(part).requires_grad_() for part in (error_logit, logits)]
    truth, flagged = tensors(truth, flagged)
    losses = {
        "error": error_loss(leaves[0], leaves[1].detach(), truth),
        "detail": detail_loss(leaves[1], flagged, truth),
        "hardest": loss_rank_mining(leaves[1], truth, 0.2),
        "bootstrapped": bootstrapped_loss(leaves[1], truth, 0.7, 0.1),
    }
    sum(losses.values()).backward()
    return {name: loss.item() for name, loss in losses.items()}, [leaf.grad for leaf in leaves]


def test_void_everywhere_is_zero_with_a_gradient_of_zero():
    error_logit, logits, truth = operands(void=1)
    assert (truth == IGNORE).all()
    losses, found = every_loss(error_logit, logits, truth, np.ones_like(truth, bool))
    assert set(losses.values()) == {0}
    assert all((gradient == 0).all() for gradient in found)


def test_one_valid_pixel_is_enough():
    error_logit, logits, truth = operands(void=1)
    truth[1, 2, 3] = 0
    losses, _ = every_loss(error_logit, logits, truth, np.ones_like(truth, bool))
    (p,) = true_probabilities(logits, truth)
    for name in ("detail", "hardest", "bootstrapped"):
        assert losses[name] == pytest.approx(-math.log(p), **CLOSE)


@pytest.mark.parametrize("gain", [0.0, 1e4], ids=["equal", "saturated"])
def test_every_gradient_is_finite(gain):
    # In float32, where e^10000 overflows.
    _, logits, truth = operands(gain=gain)
    error_logit = np.broadcast_to(np.where(np.arange(7) < 4, 1e4, -1e4), (3, 1, 5, 7))
    losses, found = every_loss(error_logit.astype("f4"), logits.astype("f4"), truth, np.ones_like(truth, bool))
    assert np.isfinite(list(losses.values())).all()
    assert all(gradient.isfinite().all() for gradient in found)


def test_a_void_image_counts_as_zero_in_the_mean():
    error_logit, logits, truth = operands()
    alone = error_loss(*tensors(error_logit[:1], logits[:1], truth[:1])).item()
    truth[1:] = IGNORE
    assert error_loss(*tensors(error_logit, logits, truth)).item() == pytest.approx(alone / 3, **CLOSE)


def test_absent_classes_do_no_harm():
    error_logit, logits, _ = operands(classes=11)
    truth = np.full((3, 5, 7), 2)
    flagged = error_logit[:, 0] > 0
    losses, _ = every_loss(error_logit, logits, truth, flagged)
    wanted = {
        "error": error_loss_by_definition(error_logit, logits, truth),
        "detail": detail_loss_by_definition(logits, flagged, truth),
        "hardest": hardest_by_definition(logits, truth, 0.2),
        "bootstrapped": bootstrapped_by_definition(logits, truth, 0.7, 0.1),
    }
    assert losses == pytest.approx(wanted, **CLOSE)


SETS = np.array(
    [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 1, 0],  # a set of two classes
        [0, 1, 1, 0, 1],  # and one of three
    ],
    bool,
)


def set_losses_by_definition(logits, truth):
    """Minus the logarithm of the summed probability of the true set's classes, of each valid pixel."""
    places = zip(*np.nonzero(truth != IGNORE), strict=True)
    return [
        -math.log(np.dot(probabilities(logits[(i, slice(None), *place)].tolist()), SETS[truth[(i, *place)]]))
        for i, *place in places
    ]


def set_operands(void=0.2, seed=3):
    error_logit, logits, truth = operands(classes=5, void=void, seed=seed)
    rng = np.random.default_rng(seed)
    return error_logit, logits, np.where(truth == IGNORE, IGNORE, rng.integers(0, len(SETS), truth.shape))


def test_cross_entropy_of_sets_is_that_of_their_summed_probability():
    _, logits, truth = set_operands()
    values, ids = tensors(logits, truth)
    losses = cross_entropy(values.requires_grad_(), ids, torch.from_numpy(SETS))
    np.testing.assert_allclose(losses.detach()[ids != IGNORE], set_losses_by_definition(logits, truth), rtol=1e-12)
    assert not losses.detach()[ids == IGNORE].any()
    losses.sum().backward()
    assert values.grad.isfinite().all()


@pytest.mark.parametrize("sets", [None, SETS], ids=["classes", "sets"])
@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_pixels_near_a_boundary_may_weigh_more(weight, sets):
    ids = len(SETS[0]) if sets is None else len(SETS)
    truth = np.random.default_rng(6).integers(0, ids, (3, 4, 4)).repeat(3, axis=1).repeat(4, axis=2)[:, :9, :13]
    truth[:, 2:4, 3:9] = IGNORE
    logits = np.random.default_rng(7).normal(size=(3, len(SETS[0]), 9, 13))
    flagged = np.random.default_rng(8).random(truth.shape) < 0.5
    total, weights = 0.0, 0.0
    for image, i, j in np.argwhere(flagged & (truth != IGNORE)):
        around = truth[image, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
        each = 1 + weight * (len(set(around[around != IGNORE].tolist())) > 1)
        p = np.exp(logits[image, :, i, j]) / np.exp(logits[image, :, i, j]).sum()
        right = truth[image, i, j] if sets is None else sets[truth[image, i, j]]
        total, weights = total - each * np.log(p[right].sum()), weights + each
    given = None if sets is None else torch.from_numpy(sets)
    found = detail_loss(*tensors(logits, flagged, truth), given, weight)
    assert found.item() == pytest.approx(total / weights, **CLOSE)
    assert found.item() != pytest.approx(detail_loss(*tensors(logits, flagged, truth), given).item(), rel=1e-3)


def test_detail_loss_of_sets():
    _, logits, truth = set_operands()
    flagged = np.random.default_rng(1).random(truth.shape) < 0.4
    found = detail_loss(*tensors(logits, flagged, truth), torch.from_numpy(SETS))
    wanted = set_losses_by_definition(logits, np.where(flagged, truth, IGNORE))
    assert float(found) == pytest.approx(sum(wanted) / len(wanted), rel=1e-12)


def test_an_error_is_a_label_outside_the_true_set():
    _, logits, truth = set_operands()
    labels = logits.argmax(axis=1)
    wanted = [truth[place] != IGNORE and not SETS[truth[place], labels[place]] for place in np.ndindex(truth.shape)]
    found = wrong_pixels(*tensors(labels, truth), torch.from_numpy(SETS))
    assert found.flatten().tolist() == wanted


def test_error_loss_of_sets():
    error_logit, logits, truth = set_operands()
    labels = logits.argmax(axis=1)
    # Eq. 2 asks of the truth only whether a label is wrong, and whether there is one.
    wrong = np.array([t != IGNORE and not SETS[t, label] for t, label in zip(truth.flat, labels.flat, strict=True)])
    as_classes = np.where(truth == IGNORE, IGNORE, (labels + wrong.reshape(truth.shape)) % 5)
    found = error_loss(*tensors(error_logit, logits, truth), sets=torch.from_numpy(SETS))
    assert float(found) == pytest.approx(error_loss_by_definition(error_logit, logits, as_classes), rel=1e-6)


def test_hard_pixels_of_sets():
    _, logits, truth = set_operands()
    losses = sorted(set_losses_by_definition(logits, truth), reverse=True)
    values, ids, sets = *tensors(logits, truth), torch.from_numpy(SETS)
    kept = losses[: math.ceil(0.3 * len(losses))]
    assert float(loss_rank_mining(values, ids, 0.3, sets)) == pytest.approx(sum(kept) / len(kept), rel=1e-12)
    hard = [loss for loss in losses if loss > -math.log(0.4)]
    assert float(bootstrapped_loss(values, ids, 0.4, 0.01, sets)) == pytest.approx(sum(hard) / len(hard), rel=1e-12)


def test_sets_of_one_class_each_are_the_classes():
    error_logit, logits, truth = tensors(*operands(classes=4))
    singles = torch.eye(4, dtype=torch.bool)
    flagged = torch.ones_like(truth, dtype=torch.bool)
    found, wanted = (float(detail_loss(logits, flagged, truth, sets)) for sets in (singles, None))
    assert found == pytest.approx(wanted)
    assert error_loss(error_logit, logits, truth, sets=singles) == error_loss(error_logit, logits, truth)


@pytest.mark.parametrize("gain", [200.0, 1000.0])
def test_cross_entropy_of_sets_of_large_logits_is_finite(gain):
    _, logits, truth = operands(classes=5, gain=gain)
    values = torch.from_numpy(logits).float().requires_grad_()
    losses = cross_entropy(values, torch.from_numpy(truth), torch.from_numpy(SETS))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert (losses >= 0).all()
    assert values.grad.isfinite().all()
