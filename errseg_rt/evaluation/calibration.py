"""Fitting calibration maps, from the logit of a score to how often it is followed by an error, and judging them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import repeat

import numpy as np

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.evaluation.error_maps import BASELINES, DETAIL, P_EP, SCORES, ErrorMaps
from errseg_rt.evaluation.error_scores import Reliability, reliability
from errseg_rt.evaluation.histogram import ErrorHistogram, equal_mass
from errseg_rt.evaluation.sweep import THRESHOLDS

KNOTS = 32
"""Knots of a map, where there are pixels enough."""
FOLDS = 5
"""Blocks of consecutive frames for cross-validation."""

Worth = dict[str, float | None]
"""`ece` and `brier` of a map, None where they are not known."""


def fit_calibration(histogram: ErrorHistogram, knots: int = KNOTS) -> Calibration:
    """Isotonic regression of the error rate over groups of pixels.

    Groups are even in correct and wrong pixels together, each kind weighing the same in total: where errors are rare,
    groups even in pixels would leave one knot to all that is likely wrong.

    Args:
        histogram: Pixels of frames that the semantic branch did not learn from, by the logit of the score.
        knots: Most knots of the map.

    Raises:
        ValueError: There is no pixel.
    """
    from scipy.optimize import isotonic_regression

    values, counts = histogram.filled()
    if not values.size:
        raise ValueError("no pixel to fit a calibration on")
    totals = counts.sum(axis=0)
    group = equal_mass((counts[:, totals > 0] / totals[totals > 0]).sum(axis=1), knots)
    pixels = np.bincount(group, counts.sum(axis=1))
    used = pixels > 0
    pixels = pixels[used]
    centers = np.bincount(group, counts.sum(axis=1) * values)[used] / pixels
    rates = np.bincount(group, counts[:, 1])[used] / pixels
    fitted = isotonic_regression(rates, weights=pixels).x
    return Calibration(tuple(centers.tolist()), tuple(np.clip(fitted, 0, 1).tolist()))


def fit_calibrations(pixels: ErrorMaps) -> dict[str, Calibration]:
    """The map of each score, by the names in `SCORES`, and by `DETAIL` that of the labels given again, if any were.

    Raises:
        ValueError: There is no pixel.
    """
    maps = {name: fit_calibration(histogram) for name, histogram in pixels.histograms.items()}
    return maps | ({DETAIL: fit_calibration(pixels.given)} if pixels.given.counts.any() else {})


def calibrations_of(manifest: Manifest) -> dict[str, Calibration]:
    """The maps that a bundle has, by the same names."""
    maps = {P_EP: manifest.calibration, **manifest.baseline_calibrations}
    return maps | ({} if manifest.detail_calibration is None else {DETAIL: manifest.detail_calibration})


def cross_validated(folds: Sequence[ErrorMaps]) -> dict[str, Worth]:
    """Reliability of each score when every fold is calibrated by a map fitted on the others: their mean.

    Folds are judged apart. Where one is too sure and the next too doubtful, their pixels together would seem right.

    Returns:
        By the names in `SCORES`, and `DETAIL` where pixels were flagged; None where fewer than two folds hold pixels.
    """

    def judged(of: Callable[[ErrorMaps], ErrorHistogram]) -> Worth:
        parts = [part for part in map(of, folds) if part.counts.any()]
        if len(parts) < 2:
            return asdict(Reliability(None, None))
        others = (_sum(other for other in parts if other is not part) for part in parts)
        return _mean_over(parts, map(fit_calibration, others))

    return {name: judged(of) for name, of in _HISTOGRAMS.items() if name != DETAIL or _any_given(folds)}


def reliability_over(folds: Sequence[ErrorMaps], calibrations: Mapping[str, Calibration]) -> dict[str, Worth]:
    """The same of given maps, to hold against those of `cross_validated`.

    Returns:
        By the names of the maps; None where no fold holds pixels. `DETAIL` is among them where pixels were flagged:
        without a map of the detail branch's doubt, P_ep's is read for the labels given again.
    """
    maps = {name: (_HISTOGRAMS[name], each) for name, each in calibrations.items() if name != DETAIL}
    if _any_given(folds):
        if DETAIL in calibrations:
            maps[DETAIL] = _HISTOGRAMS[DETAIL], calibrations[DETAIL]
        elif P_EP in calibrations:
            maps[DETAIL] = (lambda fold: fold.reread), calibrations[P_EP]
    return {name: _mean_over([of(fold) for fold in folds], repeat(each)) for name, (of, each) in maps.items()}


def not_better(old: Mapping[str, Worth], new: Mapping[str, Worth]) -> list[str]:
    """Names of scores whose new map is known to be no better than the old: in calibration error and Brier score both.

    Args:
        old: Of the old maps, by the names of those that there are.
        new: Of the new ones; of one that is not among them nothing is known.
    """

    def is_no_less(was: float | None, now: float | None) -> bool:
        return was is not None and now is not None and now >= was

    both = {name: (worth, new[name]) for name, worth in old.items() if name in new}
    return [name for name, (was, now) in both.items() if any(is_no_less(was[key], now[key]) for key in was)]


_HISTOGRAMS: dict[str, Callable[[ErrorMaps], ErrorHistogram]] = {
    **{name: lambda fold, name=name: fold.histograms[name] for name in SCORES},  # type: ignore[misc]
    DETAIL: lambda fold: fold.given,
}
"""What each map is fitted to and judged on."""


def _any_given(folds: Sequence[ErrorMaps]) -> bool:
    """Whether a pixel of them was labelled again."""
    return any(fold.given.counts.any() for fold in folds)


def _sum(histograms: Iterable[ErrorHistogram]) -> ErrorHistogram:
    return sum(histograms, ErrorHistogram())


def _mean_over(folds: Sequence[ErrorHistogram], maps: Iterable[Calibration]) -> Worth:
    """Mean over folds, a fold counting by its pixels, so that the mean of Brier scores is that of all pixels."""
    counted = [(fold, each) for fold, each in zip(folds, maps, strict=False) if fold.counts.any()]
    if not counted:
        return asdict(Reliability(None, None))
    worths, pixels = [asdict(reliability(*each)) for each in counted], [fold.counts.sum() for fold, _ in counted]
    return {key: float(np.average([worth[key] for worth in worths], weights=pixels)) for key in worths[0]}


def recalibrated(
    manifest: Manifest,
    pixels: ErrorMaps,
    *,
    name: str,
    note: str,
    threshold: float | None,
    kept: Collection[str] = (),
) -> Manifest:
    """The manifest of a bundle with maps fitted on some pixels.

    Args:
        manifest: Of the bundle as it was.
        pixels: Counted error maps.
        name: What the new bundle is called.
        note: On what it was calibrated, for its provenance.
        threshold: Its t; None: as it was.
        kept: Names of scores whose map stays as it was.

    Raises:
        ValueError: There is no pixel.
    """
    old = calibrations_of(manifest)
    fitted = {name: each for name, each in fit_calibrations(pixels).items() if name not in kept}
    maps = old | fitted
    fitted_at = manifest.threshold if DETAIL in fitted else manifest.fitted_threshold
    is_other = DETAIL in maps and fitted_at != (threshold or manifest.threshold)
    notes = {key: note for name, key in {P_EP: "calibration", DETAIL: "detail_calibration"}.items() if name in fitted}
    return replace(
        manifest,
        name=name,
        calibration=maps[P_EP],
        is_calibrated=P_EP in fitted or manifest.is_calibrated,
        detail_calibration=maps.get(DETAIL),
        detail_threshold=fitted_at if is_other else None,
        baseline_calibrations={baseline: maps[baseline] for baseline in BASELINES},
        threshold=threshold or manifest.threshold,
        lowest_threshold=min(manifest.lowest_threshold, *THRESHOLDS),
        provenance={**manifest.provenance, **notes},
    )
