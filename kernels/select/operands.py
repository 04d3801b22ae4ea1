"""What selection gives, on any place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.select.checks import level
from errseg_rt.kernels.select.layers import Layers

Rows = npt.NDArray[np.int32]


class Bounds(NamedTuple):
    """What selection goes by, frame by frame.

    Attributes:
        threshold: t of eq. 4, strictly between 0 and 1.
        budget: Most multiply-adds of refinement; None: no limit.
    """

    threshold: float
    budget: int | None = None

    def words(self) -> npt.NDArray[np.int64]:
        """As launches read them, `[2]`: the budget, -1 for none, and the bits of the level that flags exceed."""
        bits = np.float32(level(self.threshold)).view(np.int32)
        return np.array([-1 if self.budget is None else self.budget, bits], np.int64)


@dataclass(frozen=True, eq=False)
class Selection:
    """What was selected of a frame, and where each layer of refinement is computed for that.

    F3 are the flagged pixels, F2 and F1 these dilated by as many pixels as `Layers.reach` says: by one and by two where
    the layers are 3x3. A grid pixel (i, j) has the flat index `i * w + j`; a layer's row is the position of a pixel in
    the layer's support. Buffers hold the whole grid, so that on a GPU nobody waits to learn a count. Arrays are
    NumPy's, or those of a GPU's memory, say torch's tensors.

    Attributes:
        rows: int32 [3, h * w], flat indices of F1, F2 and F3, ascending, each as far as its count; what is beyond is
            not defined.
        slots: int32 [3, h * w], the row of each pixel in F1, F2 and F3, -1 outside.
        counts: int32 [3], how many pixels F1, F2 and F3 have.
        left_out: int32 [], flagged pixels that the budget had no room for.
        flagged: bool [h, w], F3.
    """

    rows: Any
    slots: Any
    counts: Any
    left_out: Any
    flagged: Any

    @property
    def grid_size(self) -> tuple[int, int]:
        """(h, w) of the grid."""
        height, width = self.flagged.shape
        return int(height), int(width)

    def support(self, layer: int) -> Rows:
        """Flat indices of F1, F2 or F3, ascending; of NumPy arrays alone, whose counts are known."""
        rows: Rows = self.rows[layer - 1, : self.counts[layer - 1]]
        return rows

    def work(self, layers: Layers) -> int:
        """Multiply-adds of the layers; of NumPy arrays alone."""
        return work_of(self.counts, layers)


def work_of(counts: Rows, layers: Layers) -> int:
    """Multiply-adds of the layers on so many pixels of F1, F2 and F3."""
    return sum(count * work for count, work in zip(counts.tolist(), layers.work, strict=True))
