"""Where the semantic branch is wrong, and what was said of it: the pixels of one frame that scores are made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets.truth import truth_on_grid
from errseg_rt.evaluation.uncertainty import baseline_logits
from errseg_rt.frames.branches import Branches

P_EP = "p_ep"
RHO = 0.95
"""Largest P_sb above which an error is hard (Gong et al. 2021, section 3.3)."""


@dataclass(frozen=True, eq=False)
class GridErrors:
    """The N valid grid pixels of a frame.

    Attributes:
        valid: Which grid pixels they are: those with a true label, `bool [h, w]`.
        wrong: Whether the semantic label differs from the true one (eq. 1), `bool [N]`.
        logits: Error logit, and the logits of the baseline scores, by name, `[N]` each.
    """

    valid: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]
    logits: Mapping[str, npt.NDArray[np.floating]]

    @classmethod
    def of(cls, truth: npt.NDArray[np.uint8], branches: Branches) -> GridErrors:
        """From the true class ids of a frame, `uint8 [H, W]`, and what the branches say of it."""
        on_grid = truth_on_grid(truth, branches.geometry)
        valid = on_grid != IGNORE
        semantic = branches.logits[:, valid]
        scores = {P_EP: branches.error_logit[valid], **baseline_logits(semantic)}
        return cls(valid, semantic.argmax(axis=0) != on_grid[valid], scores)

    @property
    def hard(self) -> npt.NDArray[np.bool_]:
        """Whether the pixel is wrong and its max P_sb above rho, `bool [N]`."""
        hard: npt.NDArray[np.bool_] = self.wrong & (self.logits["max_softmax"] < math.log((1 - RHO) / RHO))
        return hard
