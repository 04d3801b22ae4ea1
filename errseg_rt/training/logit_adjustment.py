"""Logit adjustment for rare classes (Menon et al. 2021, "Long-tail learning via logit adjustment", section 4.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import LabelledFrames
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.networks.dupsampling import DUpsampling


@torch.no_grad()
def adjust_logits(decoder: DetailBranch | DUpsampling, rarity: Tensor, strength: float) -> None:
    """Add to a decoder's logits what makes up for a class being rare; its last bias takes it in, in place.

    Where pixels count alike, a rare class loses more IoU by a pixel that is missed than a frequent one by a pixel too
    many; mean IoU counts classes alike.

    Args:
        decoder: Trained.
        rarity: Of each class, `[classes]`.
        strength: Factor on it.
    """
    bias = decoder.head.bias
    assert bias is not None
    bias += strength * rarity.to(bias).repeat_interleave(len(bias) // len(rarity))  # DUpsampling: each class's patch


def class_rarity(
    frames: LabelledFrames,
    classes: int,
    sets: npt.NDArray[np.bool_] | None = None,  # [truth ids, classes]
) -> Tensor:
    """Minus the logarithm of each class's share of the labelled pixels; a pixel of a set counts for all its classes.

    Args:
        frames: Where the shares are counted.
        classes: Number of classes.
        sets: Which classes are right where a truth id is true; None: the ids are the classes.

    Returns:
        `float32 [classes]`; a class that does not occur is as rare as the rarest that does, and all are zero without a
        labelled pixel.
    """
    sets = np.eye(classes, dtype=np.bool_) if sets is None else sets
    pixels = np.zeros(len(sets))
    for index in range(len(frames)):
        labels = frames[index][1]
        pixels += np.bincount(labels[labels != IGNORE], minlength=len(sets))
    counts = pixels @ sets
    present = counts > 0
    if not present.any():
        return torch.zeros(classes)
    shares = np.where(present, counts, counts[present].min()) / pixels.sum()
    return torch.from_numpy(-np.log(shares)).float()
