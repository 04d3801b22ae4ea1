"""Maps of the input, looked up at the centres of grid pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def on_grid(values: Tensor, grid: tuple[int, int], align_corners: bool) -> Tensor:
    """What lies under each grid pixel's centre, such as a label.

    Args:
        values: `[B, H, W]`, of the input.
        grid: Height and width of the grid.
        align_corners: Whether the corner pixels of both lie on each other; else their outer edges do.

    Returns:
        `[B, h, w]`.
    """
    rows, cols = (_centers(size, cells, align_corners) for size, cells in zip(values.shape[1:], grid, strict=True))
    return values[:, rows.to(values.device)[:, None], cols.to(values.device)]


def grid_positions(pixels: Tensor, size: int, cells: int, align_corners: bool) -> Tensor:
    """Where places of the input lie on the grid, in grid pixels: the inverse of the centres of `on_grid`.

    Args:
        pixels: Places in input pixels, whole numbers being centres of pixels.
        size: Side of the input.
        cells: Side of the grid.
        align_corners: As `on_grid` has it.
    """
    return pixels * (cells - 1) / max(size - 1, 1) if align_corners else (pixels + 0.5) * cells / size - 0.5


def _centers(size: int, cells: int, align_corners: bool) -> Tensor:
    index = torch.arange(cells, dtype=torch.float64)
    position = index * (size - 1) / max(cells - 1, 1) if align_corners else (index + 0.5) * size / cells - 0.5
    return position.round().long().clamp(0, size - 1)
