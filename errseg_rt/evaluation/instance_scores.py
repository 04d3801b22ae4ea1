"""Scores of instances: average precision of masks, panoptic quality, and what tells true ones from false."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.datasets.instances import TrueInstances
from errseg_rt.evaluation.average_precision import Floats, area_of_envelope, mean_of_recalls
from errseg_rt.evaluation.bootstrap import PairedDifference, Statistic, paired_difference
from errseg_rt.evaluation.matching import match_by_best, match_greedily
from errseg_rt.evaluation.overlaps import Overlaps
from errseg_rt.evaluation.panoptic_quality import PanopticQuality
from errseg_rt.frames.instances import Instances

VOLUME = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
"""Thresholds of mAP^r_vol, the mean of mAP^r over them; 0.5 and 0.7 are among them."""
COCO = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Thresholds of COCO's AP."""
COCO_MOST = 100
"""Hypotheses of a class in a frame that COCO looks at, the best first."""
_TRUE = 0.5  # IoU from which an instance counts as a true one for AUROC


class InstanceScores:
    """Counts found instances against true ones, over any number of frames.

    Where a class has no true instance, it has no AP, and is none of those that a mean is of; where it has, and none was
    found, its AP is 0 (pycocotools' convention, which writes -1 for the former).

    Args:
        classes: Number of classes.
        things: Those that have instances; true and found ones of others count only as labels.

    Attributes:
        panoptic: Panoptic quality, of labels and instances together.
    """

    def __init__(self, classes: int, things: Sequence[int]) -> None:
        self.panoptic = PanopticQuality(classes, things)
        self._things = list(things)
        self._truths: list[npt.NDArray[np.int64]] = []
        self._found: list[dict[str, npt.NDArray[Any]]] = [_NONE]

    def add(
        self,
        truth: TrueInstances,
        true_labels: npt.NDArray[np.uint8],
        found: Instances,
        labels: npt.NDArray[np.uint8],
    ) -> None:
        """Count a frame.

        Args:
            truth: Its true instances.
            true_labels: Its true class ids, `uint8 [H, W]`, `IGNORE` where void.
            found: The instances that were found.
            labels: The class ids that were found, `uint8 [H, W]`.

        Raises:
            ValueError: They are not of one size; nothing of the frame is counted then.
        """
        overlaps = Overlaps.of(truth, found.map, found.classes)
        self.panoptic.add(truth, true_labels, found, labels)
        best, greedy = match_by_best(overlaps, VOLUME), match_greedily(overlaps, COCO)
        of_class = overlaps.found_classes
        errors = found.error_probability
        self._truths.append(overlaps.truths(len(self.panoptic.iou)))
        self._found.append(
            {
                "frame": np.full(len(found), len(self._truths) - 1),
                "class": of_class,
                "score": found.scores,
                "error": np.full(len(found), np.nan) if errors is None else errors.astype(np.float64),
                "rank": _ranks(of_class),
                "best": best.is_true.T,
                "best_counts": best.counts.T,
                "greedy": greedy.is_true.T,
                "greedy_counts": greedy.counts.T,
            }
        )

    @property
    def truths(self) -> npt.NDArray[np.int64]:
        """True instances of each frame by class, of things alone, groups not counted, `int64 [F, classes]`."""
        classes = len(self.panoptic.iou)
        truths = np.array(self._truths, np.int64).reshape(-1, classes)
        truths[:, [label for label in range(classes) if label not in self._things]] = 0
        return truths

    def ap_r(self, label: int, threshold: float) -> float | None:
        """AP^r of a class (Hariharan et al. 2014) at one of the thresholds `VOLUME`, in 0..1."""
        return _number(self._ap_r(self._all(), label, threshold)(self._once())[0])

    def map_r(self, thresholds: Sequence[float] = VOLUME) -> float | None:
        """Mean of AP^r over classes and thresholds: of the whole `VOLUME`, mAP^r_vol."""
        return _number(self._map_r(thresholds)(self._once())[0])

    def coco_ap(self, label: int, thresholds: Sequence[float] = COCO, most: int | None = COCO_MOST) -> float | None:
        """COCO's AP of a class, the mean over some of its thresholds, in 0..1.

        Args:
            label: The class.
            thresholds: Some of `COCO`.
            most: Hypotheses of a frame that count; None: all, as frames may have more than COCO's 100 objects.
        """
        return _number(self._coco(self._all(), label, thresholds, most))

    def compared(
        self, other: InstanceScores, thresholds: Sequence[float] = VOLUME, *, seed: int = 0, resamples: int = 2000
    ) -> PairedDifference | None:
        """mAP^r of these minus that of others on the same frames, by a paired bootstrap over frames.

        Returns:
            None where no frame has a true instance.

        Raises:
            ValueError: The frames have other true instances.
        """
        truths = self.truths
        if not np.array_equal(truths, other.truths):
            raise ValueError("wanted scores of the same frames, in one order")
        if not truths.any():
            return None
        first, second = self._map_r(thresholds), other._map_r(thresholds)
        width = 1 + max(len(scores._all()["frame"]) for scores in (self, other)) // len(truths)
        return paired_difference(first, second, truths.any(axis=1), seed=seed, resamples=resamples, width=width)

    def auroc(self) -> dict[str, float | None]:
        """How often a true instance (AP^r's, at 0.5) is more trusted than a false one, in 0..1, ties counting half.

        Returns:
            By `error_probability`, the mean over the mask, and by `score`, the method's own; None where there are not
            both kinds, or no error map.
        """
        from sklearn.metrics import roc_auc_score

        found = self._all()
        column = VOLUME.index(_TRUE)
        counts = found["best_counts"][:, column]
        is_true = found["best"][counts, column]
        answer: dict[str, float | None] = {"error_probability": None, "score": None}
        if is_true.any() and not is_true.all():
            answer["score"] = float(roc_auc_score(is_true, found["score"][counts]))
            if not np.isnan(found["error"]).any():
                answer["error_probability"] = float(roc_auc_score(is_true, -found["error"][counts]))
        return answer

    def to_dict(self, classes: ClassSet) -> dict[str, Any]:
        """All scores, nested, in 0..1; None where there is nothing to score."""
        found, truths = self._all(), self.truths.sum(axis=0)
        quality = self.panoptic.by_class()
        counts = np.bincount(found["class"], minlength=len(classes))
        by_class = {}
        for label in self._things:
            by_class[classes.names[label]] = {
                "truths": int(truths[label]),
                "found": int(counts[label]),
                **{f"ap_r_{each:g}": self.ap_r(label, each) for each in (0.5, 0.7)},
                "ap_r_vol": _mean([self.ap_r(label, each) for each in VOLUME]),
                **{name: self.coco_ap(label, *how) for name, how in _COCO_WAYS.items()},
                **{name: _number(score[label]) for name, score in zip(("pq", "sq", "rq"), quality, strict=True)},
            }
        names = ("ap_r_0.5", "ap_r_0.7", "ap_r_vol", *_COCO_WAYS)
        return {
            "frames": len(self._truths),
            "truths": int(truths.sum()),
            "found": int(counts[self._things].sum()),
            **{f"m{name}": _mean([each[name] for each in by_class.values()]) for name in names},
            "panoptic": self.panoptic.to_dict(),
            "auroc": self.auroc(),
            "classes": by_class,
        }

    def _all(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of all found instances, by falling score."""
        columns = {name: np.concatenate([each[name] for each in self._found]) for name in self._found[0]}
        order = np.argsort(-columns["score"], kind="stable")
        return {name: column[order] for name, column in columns.items()}

    def _once(self) -> Floats:
        return np.ones((1, len(self._truths)))

    def _ap_r(self, found: dict[str, npt.NDArray[Any]], label: int, threshold: float) -> Statistic:
        column = VOLUME.index(threshold)
        chosen = found["best_counts"][:, column] & (found["class"] == label)
        is_true, frames = found["best"][chosen, column], found["frame"][chosen]
        truths = self.truths[:, label].astype(np.float64)
        return lambda weights: area_of_envelope(is_true, weights[:, frames], weights @ truths)

    def _map_r(self, thresholds: Sequence[float]) -> Statistic:
        found = self._all()
        ways = [self._ap_r(found, label, threshold) for label in self._things for threshold in thresholds]

        def mean(weights: Floats) -> Floats:
            scores = np.array([way(weights) for way in ways]).reshape(len(ways), len(weights))
            known = np.isfinite(scores).sum(axis=0)
            sums = np.nansum(scores, axis=0)
            means: Floats = np.divide(sums, known, out=np.full(len(weights), np.nan), where=known > 0)
            return means

        return mean

    def _coco(
        self, found: dict[str, npt.NDArray[Any]], label: int, thresholds: Sequence[float], most: int | None
    ) -> float:
        chosen = found["class"] == label
        if most is not None:
            chosen &= found["rank"] < most
        truths = np.array([self.truths[:, label].sum()], np.float64)
        scores = []
        for column in map(COCO.index, thresholds):
            is_true = found["greedy"][chosen & found["greedy_counts"][:, column], column]
            scores.append(mean_of_recalls(is_true, np.ones((1, len(is_true))), truths)[0])
        return float(np.mean(scores))


_NONE: dict[str, npt.NDArray[Any]] = {
    **{name: np.zeros(0, np.int64) for name in ("frame", "class", "rank")},
    **{name: np.zeros(0) for name in ("score", "error")},
    **{name: np.zeros((0, len(VOLUME)), bool) for name in ("best", "best_counts")},
    **{name: np.zeros((0, len(COCO)), bool) for name in ("greedy", "greedy_counts")},
}
_COCO_WAYS: dict[str, tuple[Any, ...]] = {
    "ap": (COCO, COCO_MOST),
    "ap50": ((0.5,), COCO_MOST),
    "ap75": ((0.75,), COCO_MOST),
    "ap_uncut": (COCO, None),
}


def _ranks(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many before each have its class, `int64 [N]`."""
    order = np.argsort(classes, kind="stable")
    first = np.searchsorted(classes[order], classes[order])
    ranks = np.empty(len(classes), np.int64)
    ranks[order] = np.arange(len(classes)) - first
    return ranks


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _number(score: float) -> float | None:
    return float(score) if np.isfinite(score) else None
