"""The semantic network's own way to full size, which interpolates logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from errseg_rt.evaluation.class_maps import argmax_of
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
