"""The truth where the cascade decides: on the grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.kernels.geometry import Geometry


def truth_on_grid(truth: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """The true label under the centre of each grid pixel.

    Args:
        truth: True class ids of the frame, `uint8 [H, W]`, `IGNORE` where void.
        geometry: How the frame lies on the grid.

    Returns:
        `uint8 [h, w]`, `IGNORE` where void and in the padding.

    Raises:
        ValueError: The truth is not of the frame's size.
    """
    if truth.shape != geometry.output_size:
        raise ValueError(f"the truth must be of the frame's size {geometry.output_size}, got {truth.shape = }")
    (rows, row_seen), (cols, col_seen) = (_under_centers(geometry, axis) for axis in (0, 1))
    on_grid = truth[rows[:, None], cols]
    on_grid[~(row_seen[:, None] & col_seen)] = IGNORE
    return on_grid


def _under_centers(geometry: Geometry, axis: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The frame's row or column under each grid line, and whether the frame reaches there."""
    grid, padded = geometry.grid_size[axis], geometry.input_size[axis]
    content, frame = geometry.content_size[axis], geometry.output_size[axis]
    index = np.arange(grid)
    if geometry.align_corners:
        position = index * (padded - 1) / max(grid - 1, 1)
    else:
        position = (index + 0.5) * padded / grid - 0.5
    in_input = np.clip(np.rint(position), 0, padded - 1)
    in_frame = np.minimum((in_input + 0.5) * frame / content, frame - 1)
    return in_frame.astype(np.int64), in_input < content
