"""Multi-scale inference: one label map from several views of a frame (the rows MS of the paper's table 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from errseg_rt.evaluation.class_maps import argmax_of
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.fuse_labels import upsample


@dataclass(frozen=True, eq=False)
class View:
    """A scaled, perhaps mirrored frame.

    Attributes:
        branches: What the branches say of it; their geometry leads to the frame's own size.
        mirrored: Whether left and right were exchanged.
    """

    branches: Branches
    mirrored: bool = False


def multi_scale_labels(
    views: Sequence[View], threshold: float | None = None, threads: int = 1
) -> npt.NDArray[np.uint8]:
    """Mean of the views' probabilities at every pixel of the frame, then argmax.

    Args:
        views: At least one; all of one frame.
        threshold: t of eq. 4, applied in each view; None: of the semantic branch alone.
        threads: CPU threads.

    Returns:
        `uint8 [H, W]`, the lowest class on ties.
    """
    fused = [_probabilities(view.branches, threshold) for view in views]
    return argmax_of(_sums(views, fused, threads))


def _sums(
    views: Sequence[View], fused: Sequence[npt.NDArray[np.float32]], threads: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Class by class, so that no class map of the frame's size is made."""
    for index in range(len(fused[0])):
        total = np.zeros(views[0].branches.geometry.output_size, np.float32)
        for view, probabilities in zip(views, fused, strict=True):
            enlarged = upsample(probabilities[index], view.branches.geometry, threads)
            total += enlarged[:, ::-1] if view.mirrored else enlarged
        yield total


def _probabilities(branches: Branches, threshold: float | None) -> npt.NDArray[np.float32]:
    """P of eq. 5 on the grid, `[C, h, w]`."""
    semantic: npt.NDArray[np.float32] = softmax(branches.logits, axis=0)
    if threshold is None:
        return semantic
    return np.where(branches.flagged(threshold), softmax(branches.detail_logits, axis=0), semantic)
