"""Whether error probabilities are right: of the semantic and of the final label, where pixels were flagged or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.evaluation.error_maps import DETAIL, P_EP, ErrorMaps, GivenLabels, GridErrors
from errseg_rt.evaluation.error_scores import Reliability, reliability_curve
from errseg_rt.evaluation.histogram import Counts, ErrorHistogram

LABELS = ("semantic", "final")
"""Each judged by its own error probability: P_ep's map, and where flagged the map of the detail branch's doubt."""
_DECILES = 10

Values = npt.NDArray[np.float64]
Probability = npt.NDArray[np.float32]


class LabelErrors:
    """Expected and true errors of both labels by class, in a memory that does not grow.

    Args:
        classes: Number of classes of the labels.
        calibrations: By the names in `SCORES`, and `DETAIL`; without the last P_ep's map is read for final labels.
    """

    def __init__(self, classes: int, calibrations: Mapping[str, Calibration]) -> None:
        self._calibrations = calibrations
        self._by_class = {label: np.zeros((classes, 3)) for label in LABELS}  # pixels, expected and true errors

    def add(self, errors: GridErrors, labels: GivenLabels) -> None:
        """Count the pixels of one frame."""
        semantic = self._calibrations[P_EP](errors.logits[P_EP])
        final = final_probability(semantic, labels.above, labels.doubt, self._calibrations.get(DETAIL))
        for label, given, probability, wrong in (
            ("semantic", errors.labels, semantic, errors.wrong),
            ("final", labels.final, final, labels.wrong),
        ):
            counts = self._by_class[label]
            for column, weights in enumerate((None, probability, wrong)):
                counts[:, column] += np.bincount(given, weights, 256)[: len(counts)]

    def to_dict(self, errors: ErrorMaps, names: tuple[str, ...]) -> dict[str, Any]:
        """How right each label's error probability is.

        Args:
            errors: The same pixels, counted.
            names: Of the classes.

        Returns:
            By label, where it was `flagged`, `elsewhere` and in `all`: `pixels`, the mean `expected` and the `true`
            share of errors, `ece`, `brier`, and `worst_decile`, the largest difference of both shares in a tenth of
            the pixels, in the order of the probability. `classes` has both shares by predicted class, `class_error` is
            their mean absolute difference, classes counting by their pixels. None where there is no pixel.
        """
        p_ep, elsewhere = self._calibrations[P_EP], _rated(errors.elsewhere, self._calibrations[P_EP])
        of_detail = self._calibrations.get(DETAIL)
        above = _rated(errors.reread, p_ep) if of_detail is None else _rated(errors.given, of_detail)
        flagged = {"semantic": [_rated(errors.flagged, p_ep)], "final": [above, _rated(errors.below, p_ep)]}
        answer = {}
        for label in LABELS:
            parts = {"flagged": flagged[label], "elsewhere": [elsewhere], "all": [*flagged[label], elsewhere]}
            regions = {
                name: _reliable(*(np.concatenate(each) for each in zip(*of, strict=True))) for name, of in parts.items()
            }
            answer[label] = {**regions, **_by_class(self._by_class[label], names)}
        return answer


def final_probability(
    semantic: Probability, above: npt.NDArray[np.bool_], doubt: Values | None, of_detail: Calibration | None
) -> Probability:
    """Error probability of the final labels of some pixels, of the shape of `semantic`.

    Args:
        semantic: That of the semantic labels.
        above: Which of the pixels were labelled again and have a map of the detail branch's doubt.
        doubt: Of these, `[A]`; None: there is no detail branch.
        of_detail: That map; None: there is none.
    """
    if of_detail is None or doubt is None:
        return semantic
    final = semantic.copy()
    final[above] = of_detail(doubt)
    return final


def _rated(histogram: ErrorHistogram, calibration: Calibration) -> tuple[Values, Counts]:
    """Error probability of the bins that hold pixels, and their counts."""
    values, counts = histogram.filled()
    return calibration(values).astype(np.float64), counts


def _reliable(probability: Values, counts: Counts) -> dict[str, float | None]:
    pixels, found = counts.sum(axis=1), asdict(Reliability.of(probability, counts))
    if not pixels.size:
        return {"pixels": 0, "expected": None, "true": None, **found, "worst_decile": None}
    predicted, observed, _ = reliability_curve(probability, counts, _DECILES)
    return {
        "pixels": int(pixels.sum()),
        "expected": float(np.average(probability, weights=pixels)),
        "true": float(counts[:, 1].sum() / pixels.sum()),
        **found,
        "worst_decile": float(np.abs(predicted - observed).max()),
    }


def _by_class(counts: Values, names: tuple[str, ...]) -> dict[str, Any]:
    def shares(pixels: float, expected: float, wrong: float) -> dict[str, float | None]:
        return {"expected": expected / pixels if pixels else None, "true": wrong / pixels if pixels else None}

    total = float(counts[:, 0].sum())
    return {
        "class_error": float(np.abs(counts[:, 1] - counts[:, 2]).sum() / total) if total else None,
        "classes": {name: shares(*map(float, row)) for name, row in zip(names, counts, strict=False)},
    }
