"""Calibration maps fitted on a user's own frames, and what they are worth on frames they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.evaluation.error_maps import SCORES, ErrorMaps
from errseg_rt.evaluation.error_scores import Reliability
from errseg_rt.evaluation.grid_errors import P_EP
from errseg_rt.evaluation.sweep import THRESHOLDS
from errseg_rt.evaluation.uncertainty import BASELINES

FOLDS = 5
"""Blocks of consecutive frames for cross-validation."""


def reliability(pixels: ErrorMaps, calibration: Calibration, name: str) -> Reliability:
    """What a map makes of a score on some pixels."""
    values, counts = pixels.histograms[name].filled()
    return Reliability.of(calibration(values).astype(np.float64), counts)


def cross_validated(folds: Sequence[ErrorMaps]) -> dict[str, dict[str, float | None]]:
    """Reliability of each score when every fold is calibrated by a map fitted on the others.

    Returns:
        `ece` and `brier` by the names in `SCORES`; None where fewer than two folds hold pixels.
    """
    folds = [fold for fold in folds if any(fold.pixels)]
    if len(folds) < 2:
        return {name: asdict(Reliability(None, None)) for name in SCORES}
    maps = [ErrorMaps.sum(other for other in folds if other is not fold).fit() for fold in folds]
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
    maps = pixels.fit()
    return replace(
        manifest,
        name=name,
        calibration=maps[P_EP],
        baseline_calibrations={baseline: maps[baseline] for baseline in BASELINES},
        threshold=threshold or manifest.threshold,
        lowest_threshold=min(manifest.lowest_threshold, *THRESHOLDS),
        provenance={**manifest.provenance, "calibration": note},
    )
