"""All that is counted of a cascade on labelled frames, frame by frame, and the scores that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.bundle.contract import BRANCHES
from errseg_rt.evaluation.bootstrap import paired_bootstrap
from errseg_rt.evaluation.calibration import fit_calibrations
from errseg_rt.evaluation.error_maps import P_EP, ErrorMaps, GivenLabels, GridErrors
from errseg_rt.evaluation.frame_errors import FrameErrors
from errseg_rt.evaluation.label_errors import LabelErrors
from errseg_rt.evaluation.label_scores import LabelScores
from errseg_rt.evaluation.labels import View, coarsened, multi_scale_labels, native_labels
from errseg_rt.evaluation.sweep import ThresholdSweep, flagged_share
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.calibrate.reference import doubt_reference
from errseg_rt.kernels.fuse_labels import fuse_labels
from errseg_rt.kernels.select.checks import level
from errseg_rt.kernels.select.layers import Layers


class Evaluation:
    """Scores of a cascade over any number of frames, in a memory that grows by a few numbers a frame.

    Args:
        classes: Number of classes that the truth tells apart.
        threshold: t of eq. 4.
        thresholds: Other t to try beside it.
        boundary: Whether to score the outlines of semantic and fused labels.
        folds: Parts in which error maps are counted apart, for cross-validation.
        layers: Those of refinement, for what the other t cost; None: not known.
        threads: CPU threads of fusion.
        branches: Which branches the cascade has, of `errseg_rt.bundle.contract.BRANCHES`. Without a detail branch the
            fused labels are the semantic ones, and there is no t to try.
        calibrations: Of `p_ep`, of the baselines, and of the detail branch's doubt, by name, as `calibrations_of` gives
            them: what error probabilities of frames are made by. None: the errors of frames are not scored.
        detail_threshold: P_ep above which the map of the detail branch's doubt counts, or is to be fitted; None: t.
        coarse: For truth of coarser classes than the branches', the one that each of these counts as, `uint8 [256]`,
            `IGNORE` for one that is always wrong; see `Merge.to_coarse`. None: they are the same.

    Attributes:
        semantic: Of the labels with nothing flagged.
        native: Of the semantic network's own way to full size.
        fused: Of the fused labels at t.
        multi_scale: Of `semantic_ms` and `fused_ms`, where frames came with views.
        flagged: Share of flagged grid pixels, one number a frame.
        folds: Error maps, by fold.
        sweep: What the other t do.
        frame_errors: Expected and true error of every frame; None without `calibrations`, or an error map.
        label_errors: The same of both labels, pixel by pixel; None also without a detail branch, or a map of P_ep.
    """

    def __init__(
        self,
        classes: int,
        threshold: float,
        *,
        thresholds: Sequence[float] = (),
        boundary: bool = False,
        folds: int = 1,
        layers: Layers | None = None,
        threads: int = 1,
        branches: Sequence[str] = BRANCHES,
        calibrations: Mapping[str, Calibration] | None = None,
        detail_threshold: float | None = None,
        coarse: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.classes, self.threshold, self._threads, self._branches = classes, threshold, threads, branches
        self._detail_level = level(detail_threshold or threshold)
        self._coarse, is_open = coarse, coarse is not None
        self.semantic, self.fused = (LabelScores(classes, boundary=boundary, void_labels=is_open) for _ in range(2))
        self.native = LabelScores(classes, void_labels=is_open)
        self.multi_scale: dict[str, LabelScores] = {}
        self.flagged: list[float] = []
        self.folds = [ErrorMaps() for _ in range(folds)]
        is_foretold = calibrations is not None and "error" in branches
        self.frame_errors = FrameErrors(classes, calibrations or {}) if is_foretold else None
        is_told = is_foretold and "detail" in branches and P_EP in (calibrations or {})
        self.label_errors = LabelErrors(classes, calibrations or {}) if is_told else None
        tried = thresholds if "detail" in branches else ()
        self.sweep = ThresholdSweep(classes, tried, layers=layers, threads=threads, coarse=coarse)

    def add(
        self, truth: npt.NDArray[np.uint8], branches: Branches, *, views: Sequence[View] = (), fold: int = 0
    ) -> None:
        """Score one frame.

        Args:
            truth: True class ids, `uint8 [H, W]`, `IGNORE` where void.
            branches: What the branches say of it.
            views: Of multi-scale inference; of every frame or of none.
            fold: The part its error map counts for.

        Raises:
            ValueError: The truth is not of the frame's size, an id is not a class, or a logit is NaN; nothing of the
                frame is counted then.
        """
        errors = GridErrors.of(truth, branches, self._coarse) if "error" in self._branches else None
        if errors and errors.wrong.size and np.isnan(errors.logits[P_EP]).any():
            raise ValueError("the error logits hold NaN")
        geometry, threads = branches.geometry, self._threads
        flagged = branches.flagged(self.threshold)
        above = flagged if branches.error_logit is None else flagged & (branches.error_logit > self._detail_level)
        doubt = None if branches.detail_logits is None else doubt_reference(branches.detail_logits[:, above])
        given = GivenLabels.of(errors, branches, flagged, above, doubt, self._coarse) if errors else None
        if given and np.isnan(given.doubt).any():
            raise ValueError("the detail logits hold NaN")
        semantic = fuse_labels(branches.logits, None, None, geometry, threads=threads).labels
        fused = semantic
        if branches.detail_logits is not None:
            fused = fuse_labels(branches.logits, branches.detail_logits, flagged, geometry, threads=threads).labels
        self.semantic.add(truth, coarsened(semantic, self._coarse))
        self.native.add(truth, coarsened(native_labels(branches, threads), self._coarse))
        self.fused.add(truth, coarsened(fused, self._coarse))
        for name, threshold in {"semantic_ms": None, "fused_ms": self.threshold}.items() if views else ():
            scores = self.multi_scale.setdefault(name, LabelScores(self.classes, void_labels=self._coarse is not None))
            scores.add(truth, coarsened(multi_scale_labels(views, threshold, threads), self._coarse))
        self.flagged.append(flagged_share(flagged, branches))
        if errors:
            self.folds[fold].add(errors, given)
            if self.label_errors is not None and given is not None:
                self.label_errors.add(errors, given)
            self.sweep.add(truth, branches, errors)
        if self.frame_errors is not None:
            found, valid = coarsened(fused, self._coarse), truth != IGNORE
            self.frame_errors.add(branches, found, found != truth, valid, above, doubt)

    @property
    def frames_with_truth(self) -> int:
        """Number of frames with a valid pixel."""
        return int(np.count_nonzero(self.fused.frames[:, 1].any(axis=1)))

    @property
    def errors(self) -> ErrorMaps:
        """Error maps of all frames."""
        return ErrorMaps.sum(self.folds)

    def calibrations(self) -> dict[str, Calibration]:
        """The maps from logit to error probability that these frames bear out, by name.

        They are of P_ep, of every baseline, and where pixels were flagged of the detail branch's doubt.

        Raises:
            ValueError: No frame has a valid pixel.
        """
        return fit_calibrations(self.errors)

    def to_dict(self, classes: ClassSet, calibrations: Mapping[str, Calibration] | None = None) -> dict[str, Any]:
        """All scores, nested: shares and scores in 0..1, None where there is nothing to score; no `fused` of no detail.

        Args:
            classes: What the ids mean.
            calibrations: Of `p_ep` and of the baselines, by name.
        """
        ways = {"semantic": self.semantic, "native": self.native, "fused": self.fused, **self.multi_scale}
        if "detail" not in self._branches:
            ways = {name: scores for name, scores in ways.items() if not name.startswith("fused")}
        rows = self.sweep.rows(self.semantic.confusion)
        told = {
            "frame_errors": self.frame_errors and self.frame_errors.to_dict(classes.names),
            "label_errors": self.label_errors and self.label_errors.to_dict(self.errors, classes.names),
        }
        return {
            "frames": len(self.flagged),
            "threshold": self.threshold,
            "flagged": float(np.mean(self.flagged)) if self.flagged else None,
            **{name: scores.to_dict(classes) for name, scores in ways.items()},
            "gain": self._gain() if "detail" in self._branches else None,
            "errors": self.errors.to_dict(calibrations or {}) if "error" in self._branches else None,
            **{name: scores for name, scores in told.items() if scores is not None},
            "thresholds": [asdict(row) for row in rows],
        }

    def _gain(self) -> dict[str, Any] | None:
        """Fused over the better of the two ways to label without a second look."""
        ways = {"semantic": self.semantic, "native": self.native}
        over = max(ways, key=lambda name: np.nan_to_num(ways[name].confusion.miou_of_truth()))
        gain = paired_bootstrap(self.fused.frames, ways[over].frames)
        if gain is None:
            return None
        interval = None if gain.low is None else [gain.low, gain.high]
        classes = int(self.fused.frames[:, 1].sum(axis=0).astype(bool).sum())
        verdict = {"interval": interval, "block": gain.block, "tie": gain.is_tie}
        return {"over": over, "miou": gain.difference, "classes": classes, **verdict}
