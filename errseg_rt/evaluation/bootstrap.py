"""Whether one method is better than another on the same frames, or the frames cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FrameCounts = npt.NDArray[np.int64]
"""Per frame and class: pixels labelled right, pixels of that truth, pixels of that label; `int64 [F, 3, C]`."""

Statistic = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Score of frames by how often each counts: weights `[B, F]` to scores `[B]`, NaN where there is none."""

FEWEST_FRAMES = 10
"""Frames below which draws of them say nothing: those of one frame are all alike, and seem certain."""
RESAMPLES = 2000
LEVEL = 0.95
_BATCH = 1 << 22  # weights at once, 32 MiB


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two scores over the same frames.

    Attributes:
        difference: First minus second, in -1..1.
        low: Lower end of its 95 % bootstrap interval; None of fewer than `FEWEST_FRAMES` frames.
        high: Upper end; None likewise.
    """

    difference: float
    low: float | None
    high: float | None

    @property
    def is_tie(self) -> bool | None:
        """Whether the interval holds zero: the frames do not tell which is better. None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


def paired_bootstrap(
    first: FrameCounts, second: FrameCounts, *, seed: int = 0, resamples: int = RESAMPLES
) -> PairedDifference | None:
    """Percentile bootstrap over frames (Efron 1979): each resample draws the same frames for both.

    Neighbouring frames of a video are alike, so that there the interval is narrower than new scenes would make it.

    Args:
        first: Counts of one method.
        second: Counts of the other, on the same frames.
        seed: Of the draws.
        resamples: Number of draws.

    Returns:
        The difference and its interval; None where no frame has a valid pixel. Frames without one are none of those
        that make an interval.

    Raises:
        ValueError: The counts are not of the same frames and classes.
    """
    if first.shape != second.shape or not np.array_equal(first[:, 1].sum(axis=1), second[:, 1].sum(axis=1)):
        raise ValueError(f"wanted counts of the same frames: {first.shape = }, {second.shape = }")
    if not first[:, 1].any():
        return None
    flat = [counts.reshape(len(counts), -1).astype(np.float64) for counts in (first, second)]

    def miou_of(counts: npt.NDArray[np.float64]) -> Statistic:
        return lambda weights: _miou((weights @ counts).reshape(len(weights), *first.shape[1:]))

    one, other = (miou_of(counts) for counts in flat)
    return paired_difference(one, other, first[:, 1].any(axis=1), seed=seed, resamples=resamples)


def paired_difference(
    first: Statistic,
    second: Statistic,
    valid: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    width: int = 1,
) -> PairedDifference:
    """The same of any score of a set of frames.

    Args:
        first: Score of one method, for many weightings of the frames at once.
        second: Score of the other.
        valid: Which frames say something of a score, `bool [F]`.
        seed: Of the draws.
        resamples: Number of draws.
        width: Numbers for each frame that a score keeps in memory, about.
    """
    is_valid = np.asarray(valid, bool)
    frames = len(is_valid)
    once = np.ones((1, frames))
    difference = float(first(once)[0] - second(once)[0])
    if np.count_nonzero(is_valid) < FEWEST_FRAMES:
        return PairedDifference(difference, None, None)
    rng = np.random.default_rng(seed)
    drawn = []
    for begin in range(0, resamples, batch := max(1, _BATCH // (frames * width))):
        weights = rng.multinomial(frames, np.full(frames, 1 / frames), size=min(batch, resamples - begin))
        drawn.append(first(weights.astype(np.float64)) - second(weights.astype(np.float64)))
    tail = (1 - LEVEL) / 2
    # A draw of void frames alone has no score.
    low, high = np.nanquantile(np.concatenate(drawn), [tail, 1 - tail])
    return PairedDifference(difference, float(low), float(high))


def _miou(counts: npt.NDArray[np.number]) -> npt.NDArray[np.float64]:
    """Mean IoU over the classes that occur, of counts `[..., 3, C]`; NaN where none does."""
    hits, truth, labels = np.moveaxis(counts, -2, 0)
    union = truth + labels - hits
    present = union > 0
    iou = np.divide(hits, union, out=np.zeros(union.shape), where=present)
    classes = present.sum(axis=-1)
    mean: npt.NDArray[np.float64] = np.divide(
        iou.sum(axis=-1), classes, out=np.full(classes.shape, np.nan), where=classes > 0
    )
    return mean
