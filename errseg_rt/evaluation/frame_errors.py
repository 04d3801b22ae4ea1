"""How well the error of a whole frame, and of a class in it, is foretold: by its error map, and by what is free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.evaluation.error_maps import BASELINES, DETAIL, P_EP, SCORES, baseline_logits
from errseg_rt.evaluation.label_errors import final_probability
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.fuse_labels import upsample

Values = npt.NDArray[np.float64]


class FrameErrors:
    """Expected and true errors of frames, in a memory of a few numbers a frame.

    Args:
        classes: Number of classes of the labels.
        calibrations: From the logit of a score to an error probability, by the names in `SCORES`, and `DETAIL`, as
            `calibrations_of` gives them. A score without one is taken as it is: 1 - max P_sb, the entropy over log C,
            1 - margin, raw P_ep.
    """

    def __init__(self, classes: int, calibrations: Mapping[str, Calibration]) -> None:
        self._classes, self._calibrations = classes, calibrations
        self._true: list[float | None] = []
        self._expected: list[tuple[float, ...]] = []
        self._by_class: list[Values] = []

    def add(
        self,
        branches: Branches,
        labels: npt.NDArray[np.uint8],
        wrong: npt.NDArray[np.bool_],
        valid: npt.NDArray[np.bool_],
        above: npt.NDArray[np.bool_] | None = None,
        doubt: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Count one frame.

        Args:
            branches: What the branches say of it, an error logit among it.
            labels: Its labels as a user gets them, `uint8 [H, W]`.
            wrong: Where they are wrong, `bool [H, W]`.
            valid: Where the truth is known, `bool [H, W]`; all else counts nowhere.
            above: Grid pixels that were labelled again and have a map of the detail branch's doubt, where there is one:
                that is what their error probability is made by, `bool [h, w]`. None: no pixels.
            doubt: Of these, logit of 1 - max P_db, `[A]`; None without a detail branch.
        """
        if branches.error_logit is None:
            raise ValueError("there is no error map to score")
        if not valid.any():
            self._true.append(None)
            return
        logits: dict[str, npt.NDArray[np.floating]] = {P_EP: branches.error_logit, **baseline_logits(branches.logits)}
        on_grid = {name: self._probability(name, logits[name]) for name in SCORES}
        if above is not None:
            on_grid[P_EP] = final_probability(on_grid[P_EP], above, doubt, self._calibrations.get(DETAIL))
        maps = [upsample(each, branches.geometry)[valid] for each in on_grid.values()]
        self._true.append(float(wrong[valid].mean()))
        self._expected.append(tuple(float(each.mean(dtype=np.float64)) for each in maps))
        of, weights = labels[valid], (None, maps[SCORES.index(P_EP)], wrong[valid])
        self._by_class.append(np.stack([np.bincount(of, each, 256)[: self._classes] for each in weights], axis=1))

    @property
    def expected(self) -> list[float | None]:
        """Mean error probability of every frame, in 0..1; None for one of void."""
        known = iter(self._expected)
        return [None if true is None else next(known)[SCORES.index(P_EP)] for true in self._true]

    @property
    def true(self) -> list[float | None]:
        """Share of wrong pixels of every frame, in 0..1; None for one of void."""
        return list(self._true)

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """How well every score tells the frames' errors; None where it is not known.

        Args:
            names: Of the classes.

        Returns:
            `true`, the mean of the frames' error rates; `constant`, how far they are from it in the mean, which is
            what knowing nothing of a frame costs; for the error map, and below `baselines` for each of these,
            `expected` (mean), `correlation`, `slope` (of the true over the expected rates: 1 where a frame that is
            said to have one point more has it) and `difference` (mean absolute). Below `precision`, for each class,
            the `expected` and the `true` share of right pixels among those with its label, and the mean absolute
            `difference` frame by frame, each frame counting by these pixels.
        """
        true = np.array([rate for rate in self._true if rate is not None])
        expected = np.array(self._expected).reshape(-1, len(SCORES))
        rows = {name: _told(expected[:, index], true) for index, name in enumerate(SCORES)}
        counts = np.array(self._by_class).reshape(-1, self._classes, 3)
        return {
            "frames": len(true),
            "true": float(true.mean()) if true.size else None,
            "constant": float(np.abs(true - true.mean()).mean()) if true.size else None,
            **rows[P_EP],
            "baselines": {name: rows[name] for name in BASELINES},
            "precision": {name: _precision(counts[:, index]) for index, name in enumerate(names)},
        }

    def _probability(self, name: str, logit: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        calibration = self._calibrations.get(name)
        return expit(logit).astype(np.float32) if calibration is None else calibration(logit)


def _told(expected: Values, true: Values) -> dict[str, float | None]:
    """How one score tells the error rates of frames."""
    keys = ("expected", "correlation", "slope", "difference")
    if not true.size:
        return dict.fromkeys(keys)
    x, y = expected - expected.mean(), true - true.mean()
    varies = bool(np.ptp(expected) > 0), bool(np.ptp(true) > 0)
    correlation = float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())) if all(varies) else None
    slope = float((x * y).sum() / (x * x).sum()) if varies[0] else None
    figures = float(expected.mean()), correlation, slope, float(np.abs(expected - true).mean())
    return dict(zip(keys, figures, strict=True))


def _precision(counts: Values) -> dict[str, float | None]:
    """Of one class: pixels with its label, expected and true errors among them, `[frames, 3]`."""
    pixels, expected, wrong = counts.sum(axis=0)
    if not pixels:
        return dict.fromkeys(("expected", "true", "difference"))
    difference = float(np.abs(counts[:, 1] - counts[:, 2]).sum() / pixels)
    return {"expected": float(1 - expected / pixels), "true": float(1 - wrong / pixels), "difference": difference}
