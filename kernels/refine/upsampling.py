"""Where the grid's pixels lie on the coarse grid."""

from __future__ import annotations

import numpy as np

from errseg_rt.kernels.geometry import Interpolation


def interpolation(coarse: int, fine: int, align_corners: bool) -> Interpolation:
    """Lay one axis of `fine` pixels over one of `coarse` pixels.

    Args:
        coarse: Pixels that are interpolated.
        fine: Pixels that are wanted.
        align_corners: True where the centres of the first and last pixels coincide, False where their outer edges do.
    """
    position = np.arange(fine, dtype=np.float64)
    position = position * (coarse - 1) / max(fine - 1, 1) if align_corners else (position + 0.5) * coarse / fine - 0.5
    position = np.clip(position, 0, coarse - 1)
    lower = np.minimum(np.floor(position), max(coarse - 2, 0))
    return Interpolation(lower.astype(np.int32), position - lower)
