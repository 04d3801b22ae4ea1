"""The error map of a cascade beside the free baselines, on the same pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.evaluation.error_scores import error_scores
from errseg_rt.evaluation.fit import fit_histogram
from errseg_rt.evaluation.grid_errors import P_EP, GridErrors
from errseg_rt.evaluation.histogram import ErrorHistogram
from errseg_rt.evaluation.uncertainty import BASELINES

SCORES = (P_EP, *BASELINES)


class ErrorMaps:
    """Counts the pixels of frames by each score: P_ep and the baselines.

    Attributes:
        histograms: By the names in `SCORES`.
        hard: Number of hard errors.
    """

    def __init__(self) -> None:
        self.histograms = {name: ErrorHistogram() for name in SCORES}
        self.hard = 0

    def add(self, errors: GridErrors) -> None:
        """Count the pixels of one frame."""
        for name, histogram in self.histograms.items():
            histogram.add(errors.logits[name], errors.wrong)
        self.hard += int(errors.hard.sum())

    @property
    def pixels(self) -> tuple[int, int]:
        """Correct and wrong pixels."""
        correct, wrong = self.histograms[P_EP].counts.sum(axis=0).tolist()
        return correct, wrong

    def fit(self) -> dict[str, Calibration]:
        """The calibration map of each score that these pixels bear out.

        Raises:
            ValueError: There is no pixel.
        """
        return {name: fit_histogram(histogram) for name, histogram in self.histograms.items()}

    def to_dict(self, calibrations: Mapping[str, Calibration]) -> dict[str, Any]:
        """Scores of P_ep, and under `baselines` those of each baseline; uncalibrated ones have no `ece` and `brier`."""
        scored = {name: error_scores(histogram, calibrations.get(name)) for name, histogram in self.histograms.items()}
        correct, wrong = self.pixels
        return {
            "pixels": correct + wrong,
            "rate": wrong / (correct + wrong) if correct + wrong else None,
            "hard_share": self.hard / wrong if wrong else None,
            **scored[P_EP],
            "baselines": {name: scored[name] for name in BASELINES},
        }

    @classmethod
    def sum(cls, parts: Iterable[ErrorMaps]) -> ErrorMaps:
        """The pixels of all of them."""
        total = cls()
        for part in parts:
            total.hard += part.hard
            total.histograms = {name: total.histograms[name] + part.histograms[name] for name in SCORES}
        return total
