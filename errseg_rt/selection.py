"""From the error map to the pixels that are labelled again."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.fuse_labels import Geometry


def select(error_logit: npt.NDArray[np.floating], threshold: float, geometry: Geometry) -> npt.NDArray[np.bool_]:
    """Flag the grid pixels with P_ep > t (Gong et al. 2021, eq. 4) that some pixel of the frame is made from.

    Args:
        error_logit: On the grid, `[h, w]`.
        threshold: t, strictly between 0 and 1; compared as a logit, since a sigmoid saturates into ties.
        geometry: How the frame lies on the grid; what lies in the padding alone is never flagged.

    Returns:
        `bool [h, w]`.
    """
    flagged = error_logit > math.log(threshold) - math.log1p(-threshold)
    rows, cols = geometry.seen()
    flagged[rows:] = False
    flagged[:, cols:] = False
    return flagged
