"""How well a score foretells errors: by its order, and as a probability."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.evaluation.histogram import Counts, ErrorHistogram, equal_mass

GROUPS = 15
"""Groups of equal mass in a calibration error."""
PERCENT_RECALL = 95
"""Recall at which the false positive rate is taken, in percent."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """What the order of a score is worth; an error is a positive. None where it is not defined.

    Of the pixels of one bin the order is not known: each figure is its mean over all of their orders, and exact where
    no bin holds both errors and correct pixels. On CamVid val it is within 0.00001 of that of the pixels themselves.

    Attributes:
        aupr: Average precision; None without an error.
        auroc: Area under the ROC curve; None unless there are both errors and correct pixels.
        fpr95: Share of correct pixels that are more doubtful than the error at which 95 % of all are found; None
            likewise.
        aurc: Area under risk over coverage: the error rate of what is kept, mean over all shares kept.
    """

    aupr: float | None
    auroc: float | None
    fpr95: float | None
    aurc: float | None

    @classmethod
    def of(cls, histogram: ErrorHistogram) -> Ranking:
        """From counted pixels."""
        from sklearn.metrics import roc_auc_score

        _, counts = histogram.filled()
        correct, wrong = counts.sum(axis=0).tolist()
        aupr = auroc = fpr95 = None
        if wrong:
            aupr = _average_precision(counts[::-1])
        if correct and wrong:
            truth, score, weight = _samples(np.arange(len(counts)), counts)
            auroc = float(roc_auc_score(truth, score, sample_weight=weight))
            fpr95 = _false_positives(counts[::-1], -(-PERCENT_RECALL * wrong // 100)) / correct
        return cls(aupr, auroc, fpr95, _area_of_risk(counts))


@dataclass(frozen=True)
class Reliability:
    """What a score is worth as a probability. None without a pixel.

    Attributes:
        ece: Equal-mass calibration error: the difference of mean probability and error rate, mean over `GROUPS` groups.
        brier: Brier score: mean squared difference of the probability from what was (1 wrong, 0 correct).
    """

    ece: float | None
    brier: float | None

    @classmethod
    def of(cls, probability: Values, counts: Counts) -> Reliability:
        """From bins of pixels.

        Args:
            probability: That the pixels of each bin are wrong, `[n]`.
            counts: Correct and wrong pixels by bin, `[n, 2]`.
        """
        from sklearn.metrics import brier_score_loss

        if not counts.any():
            return cls(None, None)
        truth, forecast, weight = _samples(probability, counts)
        predicted, observed, mass = reliability_curve(probability, counts)
        ece = np.average(np.abs(predicted - observed), weights=mass)
        brier = brier_score_loss(truth, forecast, sample_weight=weight, pos_label=1)
        return cls(float(ece), float(brier))


def error_scores(histogram: ErrorHistogram, calibration: Calibration | None) -> dict[str, float | None]:
    """All scores by name; `ece` and `brier` are None without a calibration."""
    known = Reliability(None, None) if calibration is None else reliability(histogram, calibration)
    return {**asdict(Ranking.of(histogram)), **asdict(known)}


def reliability(histogram: ErrorHistogram, calibration: Calibration) -> Reliability:
    """What a calibration map makes of a score."""
    values, counts = histogram.filled()
    return Reliability.of(calibration(values).astype(np.float64), counts)


def reliability_curve(probability: Values, counts: Counts, groups: int = GROUPS) -> tuple[Values, Values, Values]:
    """Mean probability, error rate and number of pixels of groups of equal mass, in the order of probability.

    Args:
        probability: That the pixels of each bin are wrong, `[n]`, n at least 1.
        counts: Correct and wrong pixels by bin, `[n, 2]`.
        groups: Number of groups; fewer come out where single bins are heavy.
    """
    order = np.argsort(probability, kind="stable")
    probability, counts = probability[order], counts[order]
    pixels = counts.sum(axis=1)
    group = equal_mass(pixels, groups)
    mass = np.bincount(group, pixels).astype(np.float64)
    used = mass > 0
    predicted = np.bincount(group, pixels * probability)[used] / mass[used]
    observed = np.bincount(group, counts[:, 1])[used] / mass[used]
    return predicted, observed, mass[used]


def risk_coverage(histogram: ErrorHistogram) -> tuple[Values, Values]:
    """Coverage and risk: the share of pixels kept, the least doubtful first, and the error rate among them."""
    _, counts = histogram.filled()
    kept = counts.sum(axis=1).cumsum()
    if not kept.size:
        return np.empty(0), np.empty(0)
    return kept / kept[-1], counts[:, 1].cumsum() / kept


def _average_precision(counts: Counts) -> float:
    """Mean precision at the errors, going down bins `[n, 2]` of falling doubt, those of a bin in random order."""
    pixels, wrong = counts.sum(axis=1), counts[:, 1]
    before, found = pixels.cumsum() - pixels, wrong.cumsum() - wrong
    # Where pixel x of a bin is an error, so are (x - 1) (wrong - 1) / (pixels - 1) of those before it, in the mean: its
    # precision is (found + 1 + (x - 1) rate) / (before + x).
    rate = (wrong - 1) / np.maximum(pixels - 1, 1)
    precision = rate * pixels + (found + 1 - rate * (before + 1)) * _reciprocals(before, pixels)
    return min(float((wrong / pixels * precision).sum() / wrong.sum()), 1.0)


def _false_positives(counts: Counts, errors: int) -> float:
    """How many correct pixels come before so many errors, going down bins of falling doubt, likewise."""
    found = counts[:, 1].cumsum()
    last = int(np.searchsorted(found, errors))  # the bin of the last of them
    correct, wrong = counts[last].tolist()
    # Errors cut the correct pixels of a bin into wrong + 1 stretches, which are equal in the mean.
    share = (errors - int(found[last]) + wrong) / (wrong + 1)
    return float(counts[:last, 0].sum() + correct * share)


def _area_of_risk(counts: Counts) -> float | None:
    """Area under risk over coverage, likewise, over bins of growing doubt."""
    pixels, wrong = counts.sum(axis=1), counts[:, 1]
    if not pixels.size:
        return None
    kept, missed = pixels.cumsum() - pixels, wrong.cumsum() - wrong
    # x pixels into a bin the risk is (missed + rate x) / (kept + x).
    areas = wrong + (missed - kept * wrong / pixels) * _reciprocals(kept, pixels)
    return float(areas.sum() / pixels.sum())


def _reciprocals(start: Counts, count: Counts) -> Values:
    """Sum of 1 / (start + x) over x = 1 .. count, of each pair."""
    from scipy.special import digamma

    sums: Values = digamma(start + count + 1.0) - digamma(start + 1.0)
    return sums


def _samples(score: npt.NDArray[np.generic], counts: Counts) -> tuple[npt.NDArray[np.int64], Values, Values]:
    """Bins as weighted samples: truth (1 wrong), score and weight, those of correct pixels first."""
    truth = np.repeat(np.arange(2), len(counts))
    return truth, np.tile(score, 2).astype(np.float64), counts.T.ravel().astype(np.float64)
