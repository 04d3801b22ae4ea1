"""What selection knows of the layers that it selects pixels for."""

from __future__ import annotations

from typing import NamedTuple


class Layers(NamedTuple):
    """The three layers of refinement, on F1, F2 and F3.

    Attributes:
        work: Multiply-adds of one pixel of each.
        kernels: Sides of their kernels, 3 or 1.
    """

    work: tuple[int, int, int] = (1, 1, 1)
    kernels: tuple[int, int, int] = (3, 3, 3)

    @property
    def of_pixel(self) -> int:
        """Multiply-adds of a pixel where all layers are computed."""
        return sum(self.work)

    @property
    def reach(self) -> tuple[int, int, int]:
        """How many pixels F1, F2 and F3 reach beyond the flagged ones: as far as the kernels behind them."""
        _, second, third = (kernel // 2 for kernel in self.kernels)
        return second + third, third, 0


LAYERS = Layers()
"""Three layers of 3x3 that cost the same."""
