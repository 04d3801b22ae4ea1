"""Panoptic quality (Kirillov et al. 2019, section 4), by the rules of its authors' scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets.instances import VOID, TrueInstances
from errseg_rt.evaluation.overlaps import Overlaps
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.panoptic import panoptic_map

_MATCH = 0.5  # IoU above which segments match: none can match two, as they do not overlap
_EXCUSED = 0.5  # share of an unmatched segment in void and groups above which it is none


class PanopticQuality:
    """Counts matched and unmatched segments, over any number of frames.

    Segments of one class match where their IoU is above 0.5; void is left out of it. An unmatched true one is missed,
    unless it is a group; an unmatched found one is wrong, unless it lies by more than half in void and in groups of its
    class. (Where a frame has several groups of one class, the authors' scripts look at the last alone; here, at all.)

    Args:
        classes: Number of classes.
        things: Those that have instances; each of the others is one segment of a frame at most.

    Attributes:
        iou: Sum of IoU of matched segments, by class, `float64 [classes]`.
        counts: Matched, wrong and missed segments, by class, `int64 [3, classes]`.
    """

    def __init__(self, classes: int, things: Sequence[int]) -> None:
        self.iou = np.zeros(classes)
        self.counts = np.zeros((3, classes), np.int64)
        self._things = list(things)

    def add(
        self,
        truth: TrueInstances,
        true_labels: npt.NDArray[np.uint8],
        found: Instances,
        labels: npt.NDArray[np.uint8],
    ) -> None:
        """Count the segments of a frame.

        Args:
            truth: Its true instances.
            true_labels: Its true class ids, `uint8 [H, W]`, `IGNORE` where void.
            found: The instances that were found.
            labels: The class ids that were found, `uint8 [H, W]`.

        Raises:
            ValueError: They are not of one size.
        """
        classes = len(self.iou)
        ids, _ = panoptic_map(labels, found, self._things)
        of_ids = np.concatenate([found.classes, np.arange(classes, dtype=np.int32)])
        overlaps = Overlaps.of(self._with_stuff(truth, true_labels), ids, of_ids)
        is_match = overlaps.iou > _MATCH
        rows, cols = overlaps.true[is_match], overlaps.found[is_match]
        np.add.at(self.iou, overlaps.found_classes[cols], overlaps.iou[is_match])
        matched = np.bincount(overlaps.found_classes[cols], minlength=classes)
        is_missed = (overlaps.true_areas > 0) & ~overlaps.crowd
        is_missed[rows] = False
        is_wrong = (overlaps.found_areas > 0) & (overlaps.excused() <= _EXCUSED)
        is_wrong[cols] = False
        wrong = np.bincount(overlaps.found_classes[is_wrong], minlength=classes)
        missed = np.bincount(overlaps.true_classes[is_missed], minlength=classes)
        self.counts += np.stack([matched, wrong, missed])

    def by_class(self) -> npt.NDArray[np.float64]:
        """PQ, SQ and RQ of each class, `float64 [3, classes]`, in 0..1; NaN where neither truth nor labels have it."""
        matched, wrong, missed = self.counts
        whole = matched + 0.5 * wrong + 0.5 * missed
        scores = np.full((3, len(self.iou)), np.nan)
        np.divide(self.iou, whole, out=scores[0], where=whole > 0)
        scores[1] = np.where(whole > 0, self.iou / np.maximum(matched, 1), np.nan)
        np.divide(matched, whole, out=scores[2], where=whole > 0)
        return scores

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Means of `pq`, `sq` and `rq` over the classes `all`, `things` and `stuff`, and their number `n`."""
        scores = self.by_class()
        is_thing = np.isin(np.arange(len(self.iou)), self._things)
        means = {}
        for name, chosen in (("all", np.ones_like(is_thing)), ("things", is_thing), ("stuff", ~is_thing)):
            known = scores[:, chosen & np.isfinite(scores[0])]
            count = known.shape[1]
            pq, sq, rq = known.mean(axis=1).tolist() if count else (None, None, None)
            means[name] = {"pq": pq, "sq": sq, "rq": rq, "n": count}
        return means

    def _with_stuff(self, truth: TrueInstances, labels: npt.NDArray[np.uint8]) -> TrueInstances:
        """The true segments: instances of things, and each other class as one; a thing that is no instance is void."""
        if labels.shape != truth.map.shape:
            raise ValueError(f"true labels and instances differ in size: {labels.shape} and {truth.map.shape}")
        classes = len(self.iou)
        of_label = np.full(256, VOID, np.int32)
        of_label[:classes] = len(truth) + 1 + np.arange(classes)
        of_label[[*self._things, IGNORE]] = VOID
        # Data may tell instances apart of a class that has none here.
        numbers = np.where(np.isin(truth.classes, self._things), np.arange(len(truth)), len(truth) + truth.classes) + 1
        of_number = np.array([0, *numbers, VOID], np.int32)  # VOID is -1, the last
        return TrueInstances(
            np.where(truth.map == 0, of_label[labels], of_number[truth.map]),
            np.concatenate([truth.classes, np.arange(classes, dtype=np.int32)]),
            np.concatenate([truth.crowd, np.zeros(classes, bool)]),
        )
