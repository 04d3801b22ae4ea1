"""An index map as runs of equal pixels along its rows: all that is asked of every instance, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of equal ids in an index map `[H, W]`, row by row; no run goes over the end of its row.

    Attributes:
        ids: Id of each run, `int64 [R]`.
        begins: Where each begins in the map read row by row, `int64 [R]`.
        lengths: Pixels of each, `int64 [R]`.
        width: Pixels of a row, W.
    """

    ids: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    width: int

    def boxes(self, count: int) -> npt.NDArray[np.int32]:
        """Smallest box around each of the ids 1..count, `int32 [count, 4]`: x, y, width, height; zeros where absent."""
        rows, left = np.divmod(self.begins, max(self.width, 1))
        right = left + self.lengths
        corners = np.empty((count + 1, 4), np.int64)
        corners[:, :2], corners[:, 2:] = np.iinfo(np.int64).max, -1
        np.minimum.at(corners[:, 0], self.ids, left)
        np.minimum.at(corners[:, 1], self.ids, rows)
        np.maximum.at(corners[:, 2], self.ids, right)
        np.maximum.at(corners[:, 3], self.ids, rows + 1)
        boxes = corners[1:]
        boxes[boxes[:, 2] < 0] = 0
        boxes[:, 2:] -= boxes[:, :2]
        return boxes.astype(np.int32)

    def sums(self, values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Sum of a map `[H, W]` over each run, `float64 [R]`."""
        if not self.begins.size:
            return np.zeros(0)
        sums: npt.NDArray[np.float64] = np.add.reduceat(values.reshape(-1), self.begins, dtype=np.float64)
        return sums


def runs_of(index: npt.NDArray[np.integer[Any]]) -> Runs:
    """The runs of an index map, integers `[H, W]`."""
    is_begin = np.ones(index.shape, bool)
    np.not_equal(index[:, 1:], index[:, :-1], out=is_begin[:, 1:])
    begins = np.flatnonzero(is_begin)
    lengths = np.diff(begins, append=index.size)
    return Runs(index.reshape(-1)[begins].astype(np.int64), begins, lengths, index.shape[1])


def ids_in(index: npt.NDArray[np.integer[Any]]) -> list[int]:
    """The ids that an index map holds, ascending; many times as fast as sorting all of its pixels."""
    return [int(each) for each in np.unique(runs_of(index).ids)]
