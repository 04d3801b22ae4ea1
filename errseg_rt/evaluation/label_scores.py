"""Scores of label maps, kept so that frames can be drawn again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.evaluation.bootstrap import FrameCounts
from errseg_rt.evaluation.boundary import BoundaryIoU


class LabelScores:
    """Scores of one way of labelling, over any number of frames.

    Args:
        classes: Number of classes.
        boundary: Whether to score the outlines too.

    Attributes:
        confusion: Of all frames.
        boundary: Boundary IoU of all frames; None unless asked for.
    """

    def __init__(self, classes: int, *, boundary: bool = False) -> None:
        self.confusion = ConfusionMatrix(classes)
        self.boundary = BoundaryIoU(classes) if boundary else None
        self._frames: list[npt.NDArray[np.int64]] = []

    def add(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """Score one frame; arguments and errors are those of `ConfusionMatrix.add`."""
        frame = ConfusionMatrix(len(self.confusion.counts))
        frame.add(truth, labels)
        self.confusion.counts += frame.counts
        self._frames.append(np.stack([np.diag(frame.counts), frame.counts.sum(axis=1), frame.counts.sum(axis=0)]))
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
