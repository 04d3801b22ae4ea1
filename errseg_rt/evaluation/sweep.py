"""What each threshold would flag, catch and gain (Gong et al. 2021, tables 1 and 2), and which is worth its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.evaluation.error_maps import GridErrors
from errseg_rt.evaluation.label_scores import LabelScores
from errseg_rt.evaluation.labels import coarsened
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.fuse_labels import fuse_labels
from errseg_rt.kernels.select import select
from errseg_rt.kernels.select.layers import LAYERS, Layers

THRESHOLDS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
ENOUGH = 0.95
"""Share of the greatest gain that a cheaper t must keep."""
_FRAMES = 0.95  # share of the frames that the budget lets through uncut


@dataclass(frozen=True)
class ThresholdRow:
    """One threshold. Shares are in 0..1; None where there is nothing to count.

    Attributes:
        t: The threshold on raw P_ep.
        error_iou: IoU of flagged and wrong pixels on the grid: the paper's "error-pixel mIoU".
        error_miou: Mean of that and the IoU of unflagged and correct pixels.
        recall: Share of the wrong pixels that are flagged.
        precision: Share of the flagged pixels that are wrong.
        hard_recall: Share of the hard errors that are flagged.
        flagged: Share of the frame's grid pixels that are flagged, mean over frames.
        work: Share of the dense stage's multiply-adds that refining them takes, mean over frames.
        miou: Of the fused labels, at frame size.
        gain: The same with nothing flagged taken from it, both over the classes that the truth holds.
    """

    t: float
    error_iou: float | None
    error_miou: float | None
    recall: float | None
    precision: float | None
    hard_recall: float | None
    flagged: float | None
    work: float | None
    miou: float | None
    gain: float | None


@dataclass(frozen=True)
class Proposal:
    """A threshold and a budget.

    Attributes:
        t: Threshold on raw P_ep.
        gain: mIoU of the fused labels minus that with nothing flagged, over the classes that the truth holds, in -1..1.
        flagged: Share of the grid that is flagged, mean over frames, in 0..1.
        work: Share of the dense stage's work that refining it takes, mean over frames, in 0..1.
        budget: Share of that work which nineteen frames in twenty do not exceed, in 0..1.
    """

    t: float
    gain: float
    flagged: float
    work: float
    budget: float


class ThresholdSweep:
    """Counts what some thresholds do, over any number of frames.

    Args:
        classes: Number of classes.
        thresholds: Thresholds on raw P_ep.
        layers: Those of refinement; None: not known, and neither is what a t costs.
        threads: CPU threads of fusion.
        coarse: What each label counts as, as `Evaluation` has it.

    Attributes:
        labels: Scores of the fused labels, by threshold.
        flagged: Share of flagged pixels of each frame, by threshold.
        work: Share of the dense stage's work that refining them takes, of each frame, by threshold; empty where it is
            not known.
    """

    def __init__(
        self,
        classes: int,
        thresholds: Sequence[float],
        *,
        layers: Layers | None = None,
        threads: int = 1,
        coarse: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.labels = {t: LabelScores(classes, void_labels=coarse is not None) for t in thresholds}
        self._coarse = coarse
        self.flagged: dict[float, list[float]] = {t: [] for t in thresholds}
        self.work: dict[float, list[float]] = {t: [] for t in thresholds}
        self._layers, self._threads = layers, threads
        # By threshold: pixels by truth (correct, wrong) and flag.
        self._counts = {t: np.zeros((2, 2), np.int64) for t in thresholds}
        self._hard = {t: np.zeros(2, np.int64) for t in thresholds}

    def add(self, truth: npt.NDArray[np.uint8], branches: Branches, errors: GridErrors) -> None:
        """Count one frame.

        Args:
            truth: True class ids, `uint8 [H, W]`.
            branches: What the branches say of it.
            errors: Where the semantic branch is wrong.
        """
        if self.labels and (branches.error_logit is None or branches.detail_logits is None):
            raise ValueError("thresholds are for a cascade that labels again what it flags")
        for t, labels in self.labels.items():
            selection = select(branches.error_logit, t, seen=branches.geometry.seen(), layers=self._layers or LAYERS)
            flagged = selection.flagged
            fused = fuse_labels(
                branches.logits, branches.detail_logits, flagged, branches.geometry, threads=self._threads
            )
            labels.add(truth, coarsened(fused.labels, self._coarse))
            self.flagged[t].append(flagged_share(flagged, branches))
            if self._layers is not None:
                self.work[t].append(selection.work(self._layers) / (flagged.size * self._layers.of_pixel))
            on_valid = flagged[errors.valid]
            self._counts[t] += np.bincount(2 * errors.wrong + on_valid, minlength=4).reshape(2, 2)
            self._hard[t] += np.bincount(on_valid[errors.hard], minlength=2)

    def rows(self, without: ConfusionMatrix) -> list[ThresholdRow]:
        """One row for each threshold.

        Args:
            without: Of the same frames' labels with nothing flagged.
        """
        return [self._row(t, without) for t in self.labels]

    def _row(self, t: float, without: ConfusionMatrix) -> ThresholdRow:
        (kept, false), (missed, caught) = self._counts[t].tolist()
        passed, stopped = self._hard[t].tolist()
        ious = [_ratio(caught, caught + false + missed), _ratio(kept, kept + false + missed)]
        known = [iou for iou in ious if iou is not None]
        confusion = self.labels[t].confusion
        return ThresholdRow(
            t=t,
            error_iou=ious[0],
            error_miou=sum(known) / len(known) if known else None,
            recall=_ratio(caught, caught + missed),
            precision=_ratio(caught, caught + false),
            hard_recall=_ratio(stopped, stopped + passed),
            flagged=float(np.mean(self.flagged[t])) if self.flagged[t] else None,
            work=float(np.mean(self.work[t])) if self.work[t] else None,
            miou=_finite(confusion.miou()),
            gain=_finite(confusion.gain_over(without)),
        )


def propose(sweep: ThresholdSweep, without: ConfusionMatrix) -> Proposal | None:
    """The cheapest threshold that keeps 95 % of the greatest gain.

    Args:
        sweep: What some thresholds do.
        without: Of the same frames' labels with nothing flagged.

    Returns:
        None where no threshold gains.
    """
    figures = {row.t: (row.gain, row.flagged, row.work) for row in sweep.rows(without)}
    worth = {
        t: (gain, flagged, work)
        for t, (gain, flagged, work) in figures.items()
        if gain is not None and flagged is not None and work is not None
    }
    best = max((gain for gain, *_ in worth.values()), default=0.0)
    if best <= 0:
        return None
    enough = [t for t, (gain, *_) in worth.items() if gain >= ENOUGH * best]
    t = min(enough, key=lambda t: worth[t][-1])
    return Proposal(t, *worth[t], budget=float(np.quantile(sweep.work[t], _FRAMES)))


def flagged_share(flagged: npt.NDArray[np.bool_], branches: Branches) -> float:
    """Share of the frame's grid pixels that are flagged, in 0..1."""
    return float(flagged.sum() / np.prod(branches.geometry.seen()))


def _finite(score: float) -> float | None:
    return score if np.isfinite(score) else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
