"""What the branches say of a frame, before anything is decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.select import select


@dataclass(frozen=True, eq=False)
class Branches:
    """Dense outputs of the semantic, the error-prediction and the detail branch, on the grid.

    Attributes:
        logits: Of the semantic branch, `float32 [C, h, w]`; P_sb is their softmax.
        error_logit: `float32 [h, w]`; P_ep is its sigmoid. None where there is no error map.
        detail_logits: Of the detail branch, at every grid pixel, `float32 [C, h, w]`; P_db is their softmax. None where
            there is no such branch.
        geometry: How the frame lies on the grid.
    """

    logits: npt.NDArray[np.float32]
    error_logit: npt.NDArray[np.float32] | None
    detail_logits: npt.NDArray[np.float32] | None
    geometry: Geometry

    def flagged(self, threshold: float) -> npt.NDArray[np.bool_]:
        """Grid pixels with P_ep > t (eq. 4) that some pixel of the frame is made from, `bool [h, w]`.

        None is, where no detail branch would label it again.
        """
        if self.error_logit is None or self.detail_logits is None:
            return np.zeros(self.geometry.grid_size, bool)
        flagged: npt.NDArray[np.bool_] = select(self.error_logit, threshold, seen=self.geometry.seen()).flagged
        return flagged
