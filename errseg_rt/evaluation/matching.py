"""Which found instances are true ones, at some thresholds on IoU: as Hariharan et al. 2014 match, and as COCO does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from errseg_rt.evaluation.overlaps import Overlaps

_EXCUSED = 0.5  # share of an unmatched hypothesis in void or groups above which it is none: that of panoptic quality


@dataclass(frozen=True, eq=False)
class Matched:
    """What became of the N found instances of a frame at T thresholds.

    Attributes:
        is_true: Which are true positives, `bool [T, N]`.
        counts: Which are true or false positives; others are neither, `bool [T, N]`.
    """

    is_true: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.bool_]


def match_by_best(overlaps: Overlaps, thresholds: Sequence[float]) -> Matched:
    """Match as Hariharan et al. 2014 ("Simultaneous detection and segmentation", section 5) do.

    Going down the scores, a found instance stands for the true one of its class that it overlaps most, and is right
    where their IoU reaches the threshold and nothing before it was right about that one. Their data know neither void
    nor groups: here, void pixels are left out of IoU, and what is not right and lies by more than half in void or in
    groups of its class counts as nothing.

    Args:
        overlaps: Of a frame; found ones by falling score.
        thresholds: Least IoU.
    """
    is_true = np.zeros((len(thresholds), len(overlaps.void)), bool)
    # Down the scores, the best first, of equal ones the first.
    order = np.lexsort((overlaps.true, -overlaps.iou, overlaps.found))
    order = order[np.unique(overlaps.found[order], return_index=True)[1]]
    for row, threshold in zip(is_true, thresholds, strict=True):
        right = order[(overlaps.iou[order] >= threshold) & (overlaps.iou[order] > 0)]
        first = np.unique(overlaps.true[right], return_index=True)[1]
        row[overlaps.found[right[first]]] = True
    return Matched(is_true, is_true | (overlaps.excused() <= _EXCUSED))


def match_greedily(overlaps: Overlaps, thresholds: Sequence[float]) -> Matched:
    """Match as COCO does (pycocotools' `evaluateImg`).

    Going down the scores, a found instance takes, of the true ones of its class that are left, the one that it overlaps
    most, where their IoU reaches the threshold. One that takes none and lies in a group of its class, by a share of its
    area that reaches the threshold, counts as nothing. Void, which COCO does not know, is such a group of every class,
    and is left out of IoU.

    Args:
        overlaps: Of a frame; found ones by falling score.
        thresholds: Least IoU.
    """
    is_true = np.zeros((len(thresholds), len(overlaps.void)), bool)
    # Down the scores, the best first, of equal ones the last, as COCO has it.
    order = np.lexsort((-overlaps.true, -overlaps.iou, overlaps.found))
    for row, threshold in zip(is_true, thresholds, strict=True):
        taken: set[int] = set()
        pairs = order[(overlaps.iou[order] >= threshold) & (overlaps.iou[order] > 0)]
        for true, found in zip(overlaps.true[pairs].tolist(), overlaps.found[pairs].tolist(), strict=True):
            if not row[found] and true not in taken:
                row[found] = True
                taken.add(true)
    least = np.asarray(thresholds, np.float64)[:, None]
    return Matched(is_true, is_true | (overlaps.largest_excuse() < least))
