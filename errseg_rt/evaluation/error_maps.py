"""Where labels are wrong, and what foretold it: P_ep, and what a branch says for free of its own doubts.

Each score grows with doubt and is kept as its logit, that of a baseline computed without ever forming the score: near
0, where most pixels lie, the score itself saturates into ties. As a logit it takes the same calibration map as P_ep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets.truth import truth_on_grid
from errseg_rt.evaluation.error_scores import error_scores
from errseg_rt.evaluation.histogram import ErrorHistogram
from errseg_rt.frames.branches import Branches

P_EP = "p_ep"
BASELINES = ("max_softmax", "entropy", "margin")
"""The baselines that an error-prediction branch must beat."""
SCORES = (P_EP, *BASELINES)
DETAIL = "detail"
"""The doubt of the detail branch, 1 - max P_db, where it gave the label: it foretells that label's errors."""
RHO = 0.95
"""Largest P_sb above which an error is hard (Gong et al. 2021, section 3.3)."""

Logits = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GridErrors:
    """The N valid grid pixels of a frame.

    Attributes:
        valid: Which grid pixels they are: those with a true label, `bool [h, w]`.
        wrong: Whether the semantic label differs from the true one (eq. 1), `bool [N]`.
        logits: Error logit, and the logits of the baseline scores, by name, `[N]` each.
        truth: True labels, `uint8 [N]`.
        labels: Labels of the semantic branch, `[N]`.
    """

    valid: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]
    logits: Mapping[str, npt.NDArray[np.floating]]
    truth: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer]

    @classmethod
    def of(
        cls,
        truth: npt.NDArray[np.uint8],
        branches: Branches,
        coarse: npt.NDArray[np.uint8] | None = None,  # [256]
    ) -> GridErrors:
        """From the true class ids of a frame, `uint8 [H, W]`, and what the branches say of it.

        With `coarse`, what each label counts as, a label is wrong where it counts as another class than the true one.

        Raises:
            ValueError: They say nothing of errors.
        """
        if branches.error_logit is None:
            raise ValueError("there is no error map to score")
        on_grid = truth_on_grid(truth, branches.geometry)
        valid = on_grid != IGNORE
        semantic = branches.logits[:, valid]
        scores = {P_EP: branches.error_logit[valid], **baseline_logits(semantic)}
        labels, true = _coarsened(semantic.argmax(axis=0), coarse), on_grid[valid]
        return cls(valid, labels != true, scores, true, labels)

    @property
    def hard(self) -> npt.NDArray[np.bool_]:
        """Whether the pixel is wrong and its max P_sb above rho, `bool [N]`."""
        hard: npt.NDArray[np.bool_] = self.wrong & (self.logits["max_softmax"] < math.log((1 - RHO) / RHO))
        return hard


@dataclass(frozen=True, eq=False)
class GivenLabels:
    """The N valid grid pixels of a frame with the labels that a user gets.

    Attributes:
        flagged: Which the detail branch labelled again, `bool [N]`.
        above: Those of them that have a map of its doubt, `bool [N]`.
        doubt: Logit of 1 - max P_db of these, `float64 [F]`.
        final: These labels, `[N]`.
        wrong: Whether they differ from the true ones, `bool [N]`.
    """

    flagged: npt.NDArray[np.bool_]
    above: npt.NDArray[np.bool_]
    doubt: Logits
    final: npt.NDArray[np.integer]
    wrong: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        errors: GridErrors,
        branches: Branches,
        flagged: npt.NDArray[np.bool_],  # [h, w]
        above: npt.NDArray[np.bool_],  # [h, w]
        doubt: Logits | None,  # [A]
        coarse: npt.NDArray[np.uint8] | None = None,  # [256]
    ) -> GivenLabels | None:
        """Of a frame's errors, what the branches say of it, and the doubt of all pixels that are `above`.

        None without a detail branch. `coarse` as there.
        """
        if branches.detail_logits is None or doubt is None:
            return None
        valid = errors.valid
        detail = _coarsened(branches.detail_logits[:, valid].argmax(axis=0), coarse)
        final = np.where(flagged[valid], detail, errors.labels)
        return cls(flagged[valid], above[valid], doubt[valid[above]], final, final != errors.truth)


def _coarsened(labels: npt.NDArray[np.integer], coarse: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.integer]:
    return labels if coarse is None else coarse[labels]


class ErrorMaps:
    """Counts the pixels of frames by each score: P_ep and the baselines.

    Attributes:
        histograms: By the names in `SCORES`, errors of the semantic labels.
        elsewhere: Pixels that were not flagged, by P_ep; both labels are one there.
        flagged: Those that were, by P_ep, errors of the semantic labels.
        given: Those of them that have a map of the detail branch's doubt, by that, errors of the final labels.
        reread: The same pixels and errors, by P_ep.
        below: The other flagged ones, by P_ep, errors of the final labels.
        hard: Number of hard errors.
    """

    def __init__(self) -> None:
        self.histograms = {name: ErrorHistogram() for name in SCORES}
        self.elsewhere, self.flagged, self.given, self.reread, self.below = (ErrorHistogram() for _ in range(5))
        self.hard = 0

    def add(self, errors: GridErrors, labels: GivenLabels | None = None) -> None:
        """Count the pixels of one frame; `labels` where there is a detail branch."""
        for name, histogram in self.histograms.items():
            histogram.add(errors.logits[name], errors.wrong)
        self.hard += int(errors.hard.sum())
        if labels is None:
            return
        p_ep, flagged, above = errors.logits[P_EP], labels.flagged, labels.above
        self.elsewhere.add(p_ep[~flagged], errors.wrong[~flagged])
        self.flagged.add(p_ep[flagged], errors.wrong[flagged])
        self.given.add(labels.doubt, labels.wrong[above])
        self.reread.add(p_ep[above], labels.wrong[above])
        self.below.add(p_ep[flagged & ~above], labels.wrong[flagged & ~above])

    @property
    def pixels(self) -> tuple[int, int]:
        """Correct and wrong pixels."""
        correct, wrong = self.histograms[P_EP].counts.sum(axis=0).tolist()
        return correct, wrong

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
            for region in ("elsewhere", "flagged", "given", "reread", "below"):
                setattr(total, region, getattr(total, region) + getattr(part, region))
            total.histograms = {name: total.histograms[name] + part.histograms[name] for name in SCORES}
        return total


def baseline_logits(logits: npt.NDArray[np.floating]) -> dict[str, Logits]:
    """The logit of each baseline score.

    `max_softmax` is 1 - max P_sb, `entropy` that of P_sb over its largest value log C, `margin` is 1 minus the
    difference of the two largest P_sb.

    Args:
        logits: Of the semantic branch, `[C, ...]`, finite.

    Returns:
        By the names in `BASELINES`, `float64 [...]`; +inf where a score is 1 (a tie of the two largest), -inf where it
        is 0 in float64.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=0)
    powers = np.exp(shifted)
    top = np.expand_dims(shifted.argmax(axis=0), 0)
    np.put_along_axis(powers, top, 0, axis=0)
    others = powers.sum(axis=0)  # relative to the top's power, which is 1
    second = powers.max(axis=0)
    # log1p: the entropy is exact also where the others are tiny.
    entropy = np.log1p(others) - (powers * shifted).sum(axis=0) / (1 + others)
    with np.errstate(divide="ignore"):
        return {
            "max_softmax": np.log(others),
            "entropy": np.log(entropy) - np.log(np.maximum(np.log(len(logits)) - entropy, 0)),
            "margin": np.log(others + second) - np.log(1 - second),
        }
