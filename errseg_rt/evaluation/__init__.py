"""How good a cascade is on labelled frames: labels, error map, calibration, instances, gain of the detail branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    from errseg_rt.evaluation.bootstrap import PairedDifference, paired_bootstrap
    from errseg_rt.evaluation.calibration import (
        FOLDS,
        calibrations_of,
        cross_validated,
        not_better,
        recalibrated,
        reliability_over,
    )
    from errseg_rt.evaluation.evaluation import Evaluation
    from errseg_rt.evaluation.instance_scores import InstanceScores
    from errseg_rt.evaluation.labels import View
    from errseg_rt.evaluation.run import Done, evaluate_frames
    from errseg_rt.evaluation.sweep import THRESHOLDS, Proposal, propose

_HOMES = {
    "bootstrap": ("PairedDifference", "paired_bootstrap"),
    "calibration": ("FOLDS", "calibrations_of", "cross_validated", "not_better", "recalibrated", "reliability_over"),
    "evaluation": ("Evaluation",),
    "instance_scores": ("InstanceScores",),
    "labels": ("View",),
    "run": ("Done", "evaluate_frames"),
    "sweep": ("THRESHOLDS", "Proposal", "propose"),
}

__all__ = [
    "FOLDS",
    "THRESHOLDS",
    "Done",
    "Evaluation",
    "InstanceScores",
    "PairedDifference",
    "Proposal",
    "View",
    "calibrations_of",
    "cross_validated",
    "evaluate_frames",
    "not_better",
    "paired_bootstrap",
    "propose",
    "recalibrated",
    "reliability_over",
]

__getattr__ = lazy(__name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names})
