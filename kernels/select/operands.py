"""The grid pixels that the layers of refinement compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Supports:
    """Where each layer is computed: F3, the flagged pixels, F2, these dilated by one pixel, and F1, by two.

    A grid pixel (i, j) has the flat index `i * w + j`. A layer's row is the position of a pixel in the layer's support.

    Attributes:
        grid_size: (h, w) of the grid.
        rows1: int32 [n1], flat indices of F1, ascending.
        rows2: int32 [n2], of F2.
        rows3: int32 [n3], of F3.
        slot1: int32 [h * w], the row of each pixel in F1, -1 outside.
        slot2: int32 [h * w], of F2.
        slot3: int32 [h * w], of F3.
    """

    grid_size: tuple[int, int]
    rows1: Rows
    rows2: Rows
    rows3: Rows
    slot1: Rows
    slot2: Rows
    slot3: Rows

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many pixels F1, F2 and F3 have."""
        return len(self.rows1), len(self.rows2), len(self.rows3)

    def work(self, row_work: tuple[int, int, int]) -> int:
        """Multiply-adds of the layers, given those of a pixel of F1, F2 and F3."""
        return sum(count * work for count, work in zip(self.counts, row_work, strict=True))


@dataclass(frozen=True)
class Selection:
    """What was selected of a frame.

    Attributes:
        supports: F3, the pixels to label again, with F2 and F1.
        left_out: Flagged pixels that the budget had no room for.
    """

    supports: Supports
    left_out: int

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """The pixels to label again, `bool [h, w]`."""
        return (self.supports.slot3 >= 0).reshape(self.supports.grid_size)


@dataclass(frozen=True)
class DeviceSelection:
    """What was selected of a frame on a GPU, in buffers that hold the whole grid; the host knows no count.

    They are torch's tensors, or other arrays of the GPU's memory.

    Attributes:
        grid_size: (h, w) of the grid.
        rows: int32 [3, h * w], flat indices of F1, F2 and F3, ascending, each as far as its count; what is
            beyond is not defined.
        slots: int32 [3, h * w], the row of each pixel in F1, F2 and F3, -1 outside.
        counts: int32 [3], how many pixels F1, F2 and F3 have.
        left_out: int32 [], flagged pixels that the budget had no room for.
        flagged: bool [h, w], F3.
    """

    grid_size: tuple[int, int]
    rows: Any
    slots: Any
    counts: Any
    left_out: Any
    flagged: Any
