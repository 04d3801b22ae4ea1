"""Fitting calibration maps, from the logit of a score to how often it is followed by an error, and judging them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.evaluation.error_maps import BASELINES, P_EP, SCORES, ErrorMaps
from errseg_rt.evaluation.error_scores import Reliability
from errseg_rt.evaluation.histogram import ErrorHistogram, equal_mass
from errseg_rt.evaluation.sweep import THRESHOLDS

KNOTS = 32
"""Knots of a map, where there are pixels enough."""
FOLDS = 5
"""Blocks of consecutive frames for cross-validation."""


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
    """The map of each score, by the names in `SCORES`.

    Raises:
        ValueError: There is no pixel.
    """
    return {name: fit_calibration(histogram) for name, histogram in pixels.histograms.items()}


def cross_validated(folds: Sequence[ErrorMaps]) -> dict[str, dict[str, float | None]]:
    """Reliability of each score when every fold is calibrated by a map fitted on the others.

    Returns:
        `ece` and `brier` by the names in `SCORES`; None where fewer than two folds hold pixels.
    """
    folds = [fold for fold in folds if any(fold.pixels)]
    if len(folds) < 2:
        return {name: asdict(Reliability(None, None)) for name in SCORES}
    maps = [fit_calibrations(ErrorMaps.sum(other for other in folds if other is not fold)) for fold in folds]
    scores = {}
    for name in SCORES:
        bins = [fold.histograms[name].filled() for fold in folds]
        probability = [fitted[name](values) for fitted, (values, _) in zip(maps, bins, strict=True)]
        pooled = Reliability.of(
            np.concatenate(probability).astype(np.float64), np.concatenate([counts for _, counts in bins])
        )
        scores[name] = asdict(pooled)
    return scores


def recalibrated(manifest: Manifest, pixels: ErrorMaps, *, name: str, note: str, threshold: float | None) -> Manifest:
    """The manifest of a bundle with maps fitted on some pixels.

    Args:
        manifest: Of the bundle as it was.
        pixels: Counted error maps.
        name: What the new bundle is called.
        note: On what it was calibrated, for its provenance.
        threshold: Its t; None: as it was.

    Raises:
        ValueError: There is no pixel.
    """
    maps = fit_calibrations(pixels)
    return replace(
        manifest,
        name=name,
        calibration=maps[P_EP],
        is_calibrated=True,
        baseline_calibrations={baseline: maps[baseline] for baseline in BASELINES},
        threshold=threshold or manifest.threshold,
        lowest_threshold=min(manifest.lowest_threshold, *THRESHOLDS),
        provenance={**manifest.provenance, "calibration": note},
    )
