"""Feature maps brought to another stride."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_LEAST = 1e-5  # of a probability, which keeps its logarithm finite


def to_stride(
    value: Tensor, stride: int, wanted: int, size: tuple[int, int], *, fits: bool, align_corners: bool
) -> Tensor:
    """A feature map at another stride: means of pixels where that is coarser, bilinear in between where it is finer.

    Args:
        value: `[B, channels, h, w]`.
        stride: Its stride, a power of two.
        wanted: The other one, likewise.
        size: Height and width that it shall have.
        fits: Whether means of pixels have that size for sure; what is interpolated has it always.
        align_corners: How the map lies on the input.

    Returns:
        `[B, channels, *size]`.
    """
    while stride < wanted:
        value, stride = halved(value, align_corners=align_corners), 2 * stride
    if fits and stride == wanted:
        return value
    return F.interpolate(value, size=size, mode="bilinear", align_corners=align_corners)


def halved(value: Tensor, *, align_corners: bool) -> Tensor:
    """Means at twice the stride, sides rounded up: of each two by two, or around each pixel that stays."""
    if align_corners:
        return F.avg_pool2d(value, 3, 2, padding=1, count_include_pad=False)
    return F.avg_pool2d(value, 2, 2, ceil_mode=True, count_include_pad=False)


def coarser_logits(logits: Tensor, stride: int, wanted: int, *, align_corners: bool) -> Tensor:
    """Logits whose probabilities are the means of those of the pixels that they stand for, at a coarser stride.

    Means of logits would be those of the pixels that are surest, and lose what is thin.
    """
    if stride >= wanted:
        return logits
    probabilities = logits.softmax(dim=1)
    while stride < wanted:
        probabilities, stride = halved(probabilities, align_corners=align_corners), 2 * stride
    return probabilities.clamp_min(_LEAST).log()
