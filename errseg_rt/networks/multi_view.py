"""Multi-view testing: what a network says of an image at several sizes, and mirrored, on average (Wu et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from errseg_rt.networks.taps import SemanticNetwork


@torch.no_grad()
def multi_view(
    network: SemanticNetwork, image: Tensor, sizes: Sequence[tuple[int, int]], *, mirror: bool = True
) -> Tensor:
    """Mean class probabilities over views, for scores: a runtime has no time for it.

    The paper names the technique and does not tell its views; each here has its logits enlarged to the image before its
    softmax, and all count alike.

    Args:
        network: In eval mode.
        image: Normalised input `[B, 3, H, W]`.
        sizes: Height and width of each view; all must be sizes that the network takes.
        mirror: Whether each is seen mirrored, too.

    Returns:
        `[B, classes, H, W]`.

    Raises:
        ValueError: There is no size.
    """
    if not sizes:
        raise ValueError("multi-view testing wants one size or more, got none")
    align = network.align_corners
    views = [F.interpolate(image, size=size, mode="bilinear", align_corners=align) for size in sizes]
    total = torch.zeros(len(image), network.classes, *image.shape[2:], device=image.device)
    for view in views:
        for is_mirrored in (False, True)[: 1 + mirror]:
            logits = network(view.flip(3) if is_mirrored else view).logits
            logits = logits.flip(3) if is_mirrored else logits
            full = F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=align)
            total += full.softmax(dim=1)
    return total / (len(views) * (1 + mirror))
