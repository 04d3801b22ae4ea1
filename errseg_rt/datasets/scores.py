"""Scores of label maps against the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE, ClassSet


class ConfusionMatrix:
    """Counts pixels by true class and label, over any number of frames; void pixels do not count.

    Args:
        classes: Number of classes.
        void_labels: Whether labels may be void, `IGNORE`, as predictions of others are: such a pixel is missed by its
            true class, and is of no other.

    Attributes:
        counts: `int64 [classes, classes]`, true class by label.
        missed: `int64 [classes]`, pixels of each true class whose label is void.
    """

    def __init__(self, classes: int, *, void_labels: bool = False) -> None:
        self.counts = np.zeros((classes, classes), np.int64)
        self.missed = np.zeros(classes, np.int64)
        self._void_labels = void_labels

    def add(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """Count the pixels of one frame.

        Args:
            truth: True class ids, `uint8 [H, W]`, `IGNORE` where void.
            labels: Predicted class ids, `uint8 [H, W]`.

        Raises:
            ValueError: The shapes differ, or an id is not a class; nothing of the frame is counted then.
        """
        if truth.shape != labels.shape:
            raise ValueError(f"truth and labels differ in shape: {truth.shape} and {labels.shape}")
        valid = truth != IGNORE
        missed = valid & (labels == IGNORE) if self._void_labels else np.zeros_like(valid)
        pairs = np.stack([truth[valid & ~missed], labels[valid & ~missed]]).astype(np.int64)
        classes = len(self.counts)
        highest = max(pairs.max(initial=0), truth[missed].max(initial=0))
        if highest >= classes:
            raise ValueError(f"id {highest} is not one of {classes} classes")
        self.missed += np.bincount(truth[missed], minlength=classes)
        self.counts += np.bincount(pairs[0] * classes + pairs[1], minlength=classes**2).reshape(classes, classes)

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class, in 0..1; NaN for a class that neither truth nor labels hold."""
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) + self.missed - hits
        iou: npt.NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
        return iou

    def miou(self) -> float:
        """Mean IoU over the classes that occur, in 0..1; NaN when none does."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    def gain_over(self, other: ConfusionMatrix) -> float:
        """MIoU of these labels minus that of others on the same frames, over the classes that the truth holds.

        Over the classes that either labels hold, as `miou` has them, a stray pixel of one more class would take its
        side's mean over another set than the other's, and cost it a point or more.

        Returns:
            In -1..1; NaN without a valid pixel.

        Raises:
            ValueError: The others were counted against another truth.
        """
        truths = [matrix.counts.sum(axis=1) + matrix.missed for matrix in (self, other)]
        if not np.array_equal(*truths):
            raise ValueError("wanted labels of the same frames: their pixels by true class differ")
        return self.miou_of_truth() - other.miou_of_truth()

    def miou_of_truth(self) -> float:
        """Mean IoU over the classes that the truth holds, in 0..1: other labels have it over the same; NaN for none."""
        iou = self.iou()[(self.counts.sum(axis=1) + self.missed) > 0]
        return float(iou.mean()) if iou.size else float("nan")

    def accuracy(self) -> float:
        """Share of valid pixels that are labelled right, in 0..1; NaN when there is none."""
        total = self.counts.sum() + self.missed.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")

    def to_dict(self, classes: ClassSet) -> dict[str, Any]:
        """`miou`, `accuracy` and `iou` by class name, in 0..1; None where there is nothing to score."""
        return {
            "miou": _number(self.miou()),
            "accuracy": _number(self.accuracy()),
            "iou": {name: _number(iou) for name, iou in zip(classes.names, self.iou().tolist(), strict=True)},
        }


def percent(score: float | None) -> str:
    """A score in 0..1 for a person to read."""
    return "-" if score is None else f"{100 * score:.2f}"


def _number(score: float) -> float | None:
    return score if np.isfinite(score) else None
