"""Boundary IoU (Cheng et al. 2021): IoU counted only near the outlines, where IoU itself hardly looks."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE

DISTANCE = 0.02
"""Width of the band along an outline, as a share of the frame's diagonal."""


class BoundaryIoU:
    """Boundary IoU of each class, over any number of frames.

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
