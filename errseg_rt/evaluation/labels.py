"""Label maps of a frame's size, made other than by fusion: the network's own, and multi-scale inference.

Argmax is taken over class maps that never lie in memory together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.fuse_labels import upsample


def native_labels(branches: Branches, threads: int = 1) -> npt.NDArray[np.uint8]:
    """Labels as a segmentation network makes them on its own: its logits, interpolated bilinearly, then argmax.

    Fusion interpolates probabilities, which is another function between grid pixels. The logits are interpolated
    straight at the frame's pixels, through the same geometry, so that nothing is rounded to a size in between.

    Args:
        branches: What the branches say of the frame.
        threads: CPU threads.

    Returns:
        `uint8 [H, W]`, the lowest class on ties.
    """
    return argmax_of(upsample(logits, branches.geometry, threads) for logits in branches.logits)


def coarsened(labels: npt.NDArray[np.uint8], coarse: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    """Labels as the truth tells them apart.

    Args:
        labels: `uint8 [H, W]`.
        coarse: What each label counts as, `uint8 [256]`; None: as itself.
    """
    return labels if coarse is None else np.asarray(cv2.LUT(labels, coarse), np.uint8)


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
    """Mean of the views' probabilities at every pixel, then argmax (the rows MS of the paper's table 6).

    Args:
        views: At least one; all of one frame.
        threshold: t of eq. 4, applied in each view; None: of the semantic branch alone.
        threads: CPU threads.

    Returns:
        `uint8 [H, W]`, the lowest class on ties.
    """
    fused = [_probabilities(view.branches, threshold) for view in views]
    return argmax_of(_sums(views, fused, threads))


def argmax_of(maps: Iterable[npt.NDArray[np.float32]]) -> npt.NDArray[np.uint8]:
    """The class of the largest value at each pixel.

    Args:
        maps: One `float32 [H, W]` a class, at least one, in the order of the ids.

    Returns:
        `uint8 [H, W]`, the lowest class on ties.
    """
    rest = iter(maps)
    largest = next(rest).copy()
    labels = np.zeros(largest.shape, np.uint8)
    for index, candidate in enumerate(rest, 1):
        labels[candidate > largest] = index
        np.maximum(largest, candidate, out=largest)
    return labels


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
    if threshold is None or branches.detail_logits is None:
        return semantic
    return np.where(branches.flagged(threshold), softmax(branches.detail_logits, axis=0), semantic)
