"""Scores of any number of pixels in a memory that does not grow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

_BINS = 1 << 18
_LARGEST = 1e4  # logits beyond are counted at the ends
_REACH = np.arcsinh(_LARGEST)


class ErrorHistogram:
    """Counts correct and wrong pixels by the logit of a score that grows with doubt.

    The bins are equally wide on the axis asinh(logit): 0.00008 wide around 0, 0.0006 at 8, where a sigmoid has long
    saturated, and no logit of a network leaves the axis.

    Attributes:
        counts: `int64 [bins, 2]`, correct and wrong pixels by bin.
    """

    def __init__(self) -> None:
        self.counts: Counts = np.zeros((_BINS, 2), np.int64)

    def add(self, logit: npt.NDArray[np.floating], wrong: npt.NDArray[np.bool_]) -> None:
        """Count some pixels.

        Args:
            logit: Of their scores, `[N]`; infinities are counted at the ends.
            wrong: Whether their labels were wrong, `[N]`.

        Raises:
            ValueError: The arrays do not pair, or a logit is NaN.
        """
        if logit.shape != wrong.shape:
            raise ValueError(f"wanted pixels in pairs: {logit.shape = }, {wrong.shape = }")
        if np.isnan(logit).any():
            raise ValueError(f"{np.isnan(logit).sum()} of {logit.size} logits are NaN")
        axis = np.arcsinh(np.clip(logit.astype(np.float64), -_LARGEST, _LARGEST))
        index = np.minimum((axis + _REACH) * (_BINS / (2 * _REACH)), _BINS - 1).astype(np.int64)
        self.counts += np.bincount(2 * index + wrong, minlength=2 * _BINS).reshape(_BINS, 2)

    def filled(self) -> tuple[npt.NDArray[np.float64], Counts]:
        """Logits at the centres of the bins that hold pixels, `[n]`, increasing, and their counts, `[n, 2]`."""
        index = np.flatnonzero(self.counts.any(axis=1))
        return np.sinh((index + 0.5) * (2 * _REACH / _BINS) - _REACH), self.counts[index]

    def __add__(self, other: ErrorHistogram) -> ErrorHistogram:
        """The pixels of both."""
        both = ErrorHistogram()
        both.counts = self.counts + other.counts
        return both


def equal_mass(mass: npt.NDArray[np.floating], groups: int) -> npt.NDArray[np.int64]:
    """The group of each of some ordered bins, so that groups weigh nearly the same.

    A bin goes where its middle lies on the axis of summed mass; one that outweighs a group leaves others empty.

    Args:
        mass: Of the bins, `[N]`, not negative, with a positive sum.
        groups: Number of groups.

    Returns:
        `int64 [N]` in 0..groups-1, never decreasing.
    """
    after = np.cumsum(mass, dtype=np.float64)
    middle = (after - mass / 2) / after[-1]
    group: npt.NDArray[np.int64] = np.minimum(middle * groups, groups - 1).astype(np.int64)
    return group
