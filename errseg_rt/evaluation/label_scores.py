"""Scores of label maps: by class, along outlines, and kept so that frames can be drawn again."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.evaluation.bootstrap import FrameCounts

DISTANCE = 0.02
"""Width of the band along an outline, as a share of the frame's diagonal."""


class LabelScores:
    """Scores of one way of labelling, over any number of frames.

    Args:
        classes: Number of classes.
        boundary: Whether to score the outlines too.
        void_labels: Whether labels may be void, as in `ConfusionMatrix`.

    Attributes:
        confusion: Of all frames.
        boundary: Boundary IoU of all frames; None unless asked for.
    """

    def __init__(self, classes: int, *, boundary: bool = False, void_labels: bool = False) -> None:
        self.confusion = ConfusionMatrix(classes)
        self._void_labels = void_labels
        self.boundary = BoundaryIoU(classes) if boundary else None
        self._frames: list[npt.NDArray[np.int64]] = []

    def add(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """Score one frame; arguments and errors are those of `ConfusionMatrix.add`."""
        frame = ConfusionMatrix(len(self.confusion.counts), void_labels=self._void_labels)
        frame.add(truth, labels)
        self.confusion.counts += frame.counts
        self.confusion.missed += frame.missed
        of_truth = frame.counts.sum(axis=1) + frame.missed
        self._frames.append(np.stack([np.diag(frame.counts), of_truth, frame.counts.sum(axis=0)]))
        if self.boundary is not None:
            self.boundary.add(truth, labels)

    @property
    def frames(self) -> FrameCounts:
        """All that the mIoU of any draw of the frames needs, `int64 [F, 3, C]`."""
        return np.array(self._frames, np.int64).reshape(-1, 3, len(self.confusion.counts))

    def frame_accuracy(self) -> list[float | None]:
        """Share of valid pixels labelled right, frame by frame; None for a frame of void."""
        return [float(hits.sum() / truth.sum()) if truth.any() else None for hits, truth, _ in self._frames]

    def to_dict(self, classes: ClassSet) -> dict[str, Any]:
        """`miou`, `accuracy`, `iou` by class name, and where outlines are scored `boundary_miou` and `boundary_iou`."""
        scores = self.confusion.to_dict(classes)
        if self.boundary is None:
            return scores
        iou = [value if np.isfinite(value) else None for value in self.boundary.iou().tolist()]
        present = [value for value in iou if value is not None]
        return {
            **scores,
            "boundary_miou": sum(present) / len(present) if present else None,
            "boundary_iou": dict(zip(classes.names, iou, strict=True)),
        }


class BoundaryIoU:
    """Boundary IoU of each class (Cheng et al. 2021), over any number of frames: IoU near the outlines alone.

    The band of a class in a label map holds its pixels with another class, or the frame's edge, within the distance.
    Void is neither counted nor another class: it makes no outline, in the truth or in the labels.

    Args:
        classes: Number of classes.

    Attributes:
        counts: `int64 [classes, 2]`, pixels in both bands and pixels in either.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, 2), np.int64)

    def add(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """Count the pixels of one frame.

        Args:
            truth: True class ids, `uint8 [H, W]`, `IGNORE` where void.
            labels: Predicted class ids, `uint8 [H, W]`.
        """
        void = truth == IGNORE
        side = 2 * max(1, round(DISTANCE * math.hypot(*truth.shape))) + 1
        square = np.ones((side, side), np.uint8)
        for index in np.flatnonzero(_present(truth, len(self.counts)) | _present(labels, len(self.counts))):
            true_band, band = (_band(ids == index, void, square) for ids in (truth, labels))
            self.counts[index] += (true_band & band).sum(), (true_band | band).sum()

    def iou(self) -> npt.NDArray[np.float64]:
        """Boundary IoU per class, in 0..1; NaN for a class that has no band."""
        both, either = self.counts.T
        iou: npt.NDArray[np.float64] = np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)
        return iou


def _band(
    mask: npt.NDArray[np.bool_], void: npt.NDArray[np.bool_], square: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    inner = cv2.erode((mask | void).astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    band: npt.NDArray[np.bool_] = mask & ~void & (inner == 0)
    return band


def _present(ids: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.bool_]:
    present: npt.NDArray[np.bool_] = np.bincount(ids.ravel(), minlength=256)[:classes] > 0
    return present
