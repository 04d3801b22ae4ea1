"""Scores of binned pixels, against libraries and definitions on the pixels themselves."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.evaluation.error_scores import GROUPS, Ranking, Reliability, error_scores, risk_coverage
from errseg_rt.evaluation.histogram import ErrorHistogram

# A bin holds pixels that differ by 0.00008 in their logit or more: of some ten thousand, a few change places.
CLOSE = 5e-5


def pixels(seed=0, count=20_000, rate=0.05):
    """Error logits, and errors that grow with them."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(count) < rate
    return rng.normal(size=count) * 2 + 3 * wrong - 4, wrong


def counted(logit, wrong) -> ErrorHistogram:
    histogram = ErrorHistogram()
    histogram.add(logit, wrong)
    return histogram


def check(logit, wrong, within: float) -> None:
    """Hold a ranking against scikit-learn's of the pixels themselves."""
    found = Ranking.of(counted(logit, wrong))
    fpr, tpr, _ = roc_curve(wrong, logit, drop_intermediate=False)
    assert found.aupr == pytest.approx(average_precision_score(wrong, logit), abs=within)
    assert found.auroc == pytest.approx(roc_auc_score(wrong, logit), abs=within)
    assert found.fpr95 == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min(), abs=within)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.5])
def test_ranking_equals_the_library_on_the_pixels(rate) -> None:
    check(*pixels(rate=rate), within=CLOSE if rate > 0.001 else 10 * CLOSE)  # of 20 errors each moves much


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.7])
@pytest.mark.parametrize("count", [1, 2, 7, 20, 60, 180, 301, 5000])
def test_ranking_is_exact_where_no_bin_holds_both_kinds(rate, count) -> None:
    """As many bins as pixels: of whatever number, of however few errors, to rounding."""
    rng = np.random.default_rng(count)
    logit, wrong = np.sinh(rng.permutation(count) / count * 16 - 8), rng.random(count) < rate
    wrong[rng.integers(count)] = True
    if not wrong.all():
        check(logit, wrong, within=1e-12)


@pytest.mark.parametrize(
    ("correct", "wrong"), [((1, 0, 3), (0, 2, 2)), ((4, 2), (1, 2)), ((3,), (3,)), ((5, 0), (0, 2))]
)
def test_pixels_of_a_bin_are_in_every_order(correct, wrong) -> None:
    """The mean over all orders of the pixels within their bins, each figure by its definition."""
    bins = [[True] * w + [False] * c for c, w in zip(correct, wrong, strict=True)]  # of falling doubt
    precision, false, risk = [], [], []
    for orders in product(*(set(permutations(each)) for each in bins)):
        falling = np.concatenate([np.array(order, bool) for order in orders])
        ranks = np.arange(1, len(falling) + 1)
        precision.append((falling.cumsum() / ranks)[falling].mean())
        last = np.flatnonzero(falling)[int(np.ceil(0.95 * falling.sum())) - 1]
        false.append((~falling[:last]).sum() / (~falling).sum())
        risk.append((falling[::-1].cumsum() / ranks).mean())
    logit = np.repeat(-np.arange(len(bins), dtype=float), [len(each) for each in bins])
    found = Ranking.of(counted(logit, np.concatenate(bins)))
    assert (found.aupr, found.fpr95, found.aurc) == pytest.approx([np.mean(each) for each in (precision, false, risk)])


def test_a_score_that_saturates_is_not_rounded_up() -> None:
    """Thousands of pixels to a bin: means over their orders, by draws of some."""
    rng = np.random.default_rng(7)
    wrong = rng.random(40_000) < 0.1
    level = np.clip(np.rint(rng.normal(size=wrong.size) + wrong), -2, 3)
    found = Ranking.of(counted(level, wrong))
    draws = []
    for _ in range(20):
        logit = level + rng.random(level.size) * 0.5
        fpr, tpr, _ = roc_curve(wrong, logit, drop_intermediate=False)
        draws.append([average_precision_score(wrong, logit), roc_auc_score(wrong, logit), fpr[tpr >= 0.95].min()])
    mean, spread = np.mean(draws, axis=0), np.std(draws, axis=0) / np.sqrt(len(draws))
    assert np.abs([found.aupr, found.auroc, found.fpr95] - mean) == pytest.approx(0, abs=4 * spread.max())


def test_ranking_equals_the_definitions() -> None:
    logit, wrong = pixels(1)
    found = Ranking.of(counted(logit, wrong))
    pairs = mannwhitneyu(logit[wrong], logit[~wrong]).statistic  # an error above a correct pixel
    assert found.auroc == pytest.approx(pairs / (wrong.sum() * (~wrong).sum()), abs=CLOSE)
    hits = wrong[np.argsort(-logit)]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    assert found.aupr == pytest.approx(precision[hits].mean(), abs=CLOSE)


def test_area_of_risk_is_the_mean_error_rate_of_all_shares_kept() -> None:
    logit, wrong = pixels(2)
    kept = wrong[np.argsort(logit)].cumsum() / np.arange(1, len(wrong) + 1)
    assert Ranking.of(counted(logit, wrong)).aurc == pytest.approx(kept.mean(), abs=CLOSE)


def test_area_of_risk_of_ties_is_that_of_a_random_order() -> None:
    wrong = np.arange(1000) < 300
    assert Ranking.of(counted(np.zeros(1000), wrong)).aurc == pytest.approx(0.3)


def test_risk_coverage_is_what_its_words_say() -> None:
    logit, wrong = pixels(3, count=300)
    coverage, risk = risk_coverage(counted(logit, wrong))
    assert coverage[-1] == 1
    for share, rate in list(zip(coverage, risk, strict=True))[::17]:
        keep = np.argsort(logit)[: round(share * 300)]
        assert rate == pytest.approx(wrong[keep].mean(), abs=1e-12)


def test_probabilities_equal_the_definitions_on_the_pixels() -> None:
    logit, wrong = pixels(4, count=30_000)
    calibration = Calibration((-8.0, -2.0, 0.0, 3.0), (0.0, 0.05, 0.3, 0.9))
    probability = calibration(logit).astype(np.float64)
    groups = np.array_split(np.argsort(logit), GROUPS)
    ece = sum(abs(probability[g].mean() - wrong[g].mean()) * len(g) for g in groups) / len(wrong)
    found = error_scores(counted(logit, wrong), calibration)
    assert found["ece"] == pytest.approx(ece, abs=CLOSE)
    assert found["brier"] == pytest.approx(brier_score_loss(wrong, probability), abs=CLOSE)
    assert ece > 0.01  # far from calibrated: there is something to find


def test_true_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(5)
    probability = rng.random(50_000)
    wrong = rng.random(50_000) < probability
    counts = np.stack([~wrong, wrong], axis=1).astype(np.int64)
    found = Reliability.of(probability, counts)
    # A group of 3333 pixels is off by sqrt(p (1 - p) / 3333), at most 0.009.
    assert 0 < found.ece < 0.01
    assert found.brier == pytest.approx(np.mean((probability - wrong) ** 2))


def test_a_false_certainty_costs_all_of_it() -> None:
    assert Reliability.of(np.array([1.0]), np.array([[5, 0]])) == Reliability(ece=1.0, brier=1.0)


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        (np.zeros(50, bool), Ranking(aupr=None, auroc=None, fpr95=None, aurc=0.0)),
        (np.ones(50, bool), Ranking(aupr=1.0, auroc=None, fpr95=None, aurc=1.0)),
        (np.zeros(0, bool), Ranking(aupr=None, auroc=None, fpr95=None, aurc=None)),
    ],
    ids=["no_errors", "all_errors", "no_pixels"],
)
@pytest.mark.filterwarnings("error")
def test_where_there_is_nothing_to_rank(wrong, wanted) -> None:
    logit = np.linspace(-3, 3, len(wrong))
    assert asdict(Ranking.of(counted(logit, wrong))) == pytest.approx(asdict(wanted))
    scores = error_scores(counted(logit, wrong), Calibration((0.0,), (0.25,)))
    assert {key: scores[key] for key in asdict(wanted)} == pytest.approx(asdict(wanted))
    json.dumps(scores, allow_nan=False)
    if len(wrong):
        assert scores["brier"] == pytest.approx((wrong[0] - 0.25) ** 2)
    else:
        assert (scores["ece"], scores["brier"]) == (None, None)


def test_a_perfect_score() -> None:
    wrong = np.arange(1000) >= 900
    found = Ranking.of(counted(np.where(wrong, 1.0, -1.0), wrong))
    assert (found.aupr, found.auroc, found.fpr95) == (1, 1, 0)
    assert found.aurc == pytest.approx(np.mean(np.maximum(0, 1 - 900 / np.arange(1, 1001))), abs=1e-4)


def test_without_a_calibration_there_is_no_probability() -> None:
    scores = error_scores(counted(*pixels()), None)
    assert (scores["ece"], scores["brier"]) == (None, None)
    assert scores["auroc"] is not None
