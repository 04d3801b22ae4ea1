"""Whether one method is better than another on the same frames, or the frames cannot tell."""

from __future__ import annotations

import math
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

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two scores over the same frames.

    Attributes:
        difference: First minus second, in -1..1.
        low: Lower end of its 95 % bootstrap interval; None of fewer than `FEWEST_FRAMES` frames.
        high: Upper end; None likewise.
        block: How many consecutive frames were drawn together for it; None likewise.
    """

    difference: float
    low: float | None
    high: float | None
    block: int | None

    @property
    def is_tie(self) -> bool | None:
        """Whether the interval holds zero: the frames do not tell which is better. None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


def paired_bootstrap(
    first: FrameCounts,
    second: FrameCounts,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    block: int | None = None,
) -> PairedDifference | None:
    """Difference in mIoU over the classes that the truth holds, and its interval, as `paired_difference` has it.

    Args:
        first: Counts of one method, frames in the order they were taken.
        second: Counts of the other, on the same frames.
        seed: Of the draws.
        resamples: Number of draws.
        block: Consecutive frames that are drawn together; None: as `block_of` has it.

    Returns:
        The difference and its interval; None where no frame has a valid pixel. Frames without one are none of those
        that make an interval.

    Raises:
        ValueError: The counts are not of the same frames and classes.
    """
    if first.shape != second.shape or not np.array_equal(first[:, 1], second[:, 1]):
        raise ValueError(f"wanted counts of the same frames: {first.shape = }, {second.shape = }")
    if not first[:, 1].any():
        return None
    flat = [counts.reshape(len(counts), -1).astype(np.float64) for counts in (first, second)]

    def miou_of(counts: npt.NDArray[np.float64]) -> Statistic:
        return lambda weights: _miou((weights @ counts).reshape(len(weights), *first.shape[1:]))

    one, other = (miou_of(counts) for counts in flat)
    return paired_difference(one, other, first[:, 1].any(axis=1), seed=seed, resamples=resamples, block=block)


def paired_difference(
    first: Statistic,
    second: Statistic,
    valid: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    width: int = 1,
    block: int | None = None,
) -> PairedDifference:
    """Difference of any two scores of a set of frames, with a percentile interval by a circular block bootstrap.

    Each draw takes the same frames for both: blocks of consecutive ones (Politis and Romano 1992), the first following
    the last, until it has as many as there are. Neighbours in a clip are alike, and draws of single frames (Efron 1979)
    would make the interval half as wide as it is; where frames know nothing of each other, blocks do no harm.

    Args:
        first: Score of one method, for many weightings of the frames at once.
        second: Score of the other.
        valid: Which frames say something of a score, `bool [F]`.
        seed: Of the draws.
        resamples: Number of draws.
        width: Numbers for each frame that a score keeps in memory, about.
        block: Consecutive frames that are drawn together; None: as `block_of` has it.

    Raises:
        ValueError: The blocks have no frame, or more than there are.
    """
    is_valid = np.asarray(valid, bool)
    frames = len(is_valid)
    block = block_of(frames) if block is None else block
    if not 1 <= block <= max(frames, 1):
        raise ValueError(f"blocks hold from 1 to all of {frames} frames, got {block}")
    once = np.ones((1, frames))
    difference = float(first(once)[0] - second(once)[0])
    if np.count_nonzero(is_valid) < FEWEST_FRAMES:
        return PairedDifference(difference, None, None, None)
    rng = np.random.default_rng(seed)
    drawn = []
    for begin in range(0, resamples, batch := max(1, _BATCH // (frames * width))):
        weights = _draws(rng, frames, block, min(batch, resamples - begin))
        drawn.append(first(weights) - second(weights))
    tail = (1 - LEVEL) / 2
    # A draw of void frames alone has no score.
    low, high = np.nanquantile(np.concatenate(drawn), [tail, 1 - tail])
    return PairedDifference(difference, float(low), float(high), block)


def block_of(frames: int) -> int:
    """How many consecutive frames a block has: as many as there are blocks, about.

    Both grow with the frames, as they must: blocks until they are longer than what makes neighbours alike, and their
    number, which the spread of draws is known from.
    """
    return max(1, round(math.sqrt(frames)))


def _draws(rng: np.random.Generator, frames: int, block: int, draws: int) -> Floats:
    """How often each frame counts in each draw, `[draws, frames]`."""
    starts = rng.integers(0, frames, (draws, -(-frames // block)))
    drawn = ((starts[:, :, None] + np.arange(block)) % frames).reshape(draws, -1)[:, :frames]
    flat = (np.arange(draws)[:, None] * frames + drawn).ravel()
    return np.bincount(flat, minlength=draws * frames).reshape(draws, frames).astype(np.float64)


def _miou(counts: npt.NDArray[np.number]) -> Floats:
    """Mean IoU over the classes that the truth holds, of counts `[..., 3, C]`; NaN where it holds none."""
    hits, truth, labels = np.moveaxis(counts, -2, 0)
    present = truth > 0
    iou = np.divide(hits, truth + labels - hits, out=np.zeros(hits.shape), where=present)
    classes = present.sum(axis=-1)
    mean: npt.NDArray[np.float64] = np.divide(
        iou.sum(axis=-1), classes, out=np.full(classes.shape, np.nan), where=classes > 0
    )
    return mean
