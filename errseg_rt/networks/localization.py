"""The localization head: of each pixel, the box of the instance that it belongs to (Wu et al. 2016, section 2.1)."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.backbone import conv_bn
from errseg_rt.networks.taps import SemanticNetwork, Taps

VALUES = 4
"""Of a box: how far its centre lies below and to the right of the pixel, its height, and its width."""


class LocalizationHead(nn.Module):
    """Four values a thing and grid pixel, of the taps of a semantic network, from coarse to fine.

    The authors give localization a network of its own; with a head on the taps, one front graph computes both.

    Args:
        semantic: The network whose taps it reads.
        things: Number of classes that have instances.
        width: Channels of its features.
        scale: Typical side of an instance in grid cells. The last layer's outputs are multiples of it, so that they
            stay near 1, and an untrained head says boxes of that side around each pixel.
    """

    def __init__(self, semantic: SemanticNetwork, things: int, width: int, scale: float) -> None:
        super().__init__()
        self.things, self.scale, self.align_corners = things, scale, semantic.align_corners
        self.deep = conv_bn(semantic.deep_channels + semantic.high_channels, width, 3)
        self.mid = _Level(semantic.mid_channels, width)
        self.low = _Level(semantic.low_channels, width)
        self.fuse = conv_bn(width, width, 3)
        self.head = nn.Conv2d(width, VALUES * things, 1)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, taps: Taps) -> Tensor:
        """Boxes on the grid, in grid cells.

        Returns:
            `[B, 4 * things, h, w]`: of thing t, channels 4t..4t+3 are (dy, dx, height, width). The centre of the
            pixel's instance's box is (row + dy, column + dx); height and width are above 0.
        """
        x = self.deep(torch.cat([taps.deep, taps.high], dim=1))
        for level, tap in ((self.mid, taps.mid), (self.low, taps.low)):
            up = F.interpolate(x, size=tap.shape[2:], mode="bilinear", align_corners=self.align_corners)
            x = level(tap, up)
        values: Tensor = self.head(self.fuse(x)).unflatten(1, (self.things, VALUES))
        # 1 + ELU grows as the paper's linear outputs do, but a side never falls to 0.
        sides = 1 + F.elu(values[:, :, 2:])
        return self.scale * torch.cat([values[:, :, :2], sides], dim=2).flatten(1, 2)


class _Level(nn.Module):
    """Features of one tap, added to those of the coarser ones."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project = conv_bn(channels, width, 1, relu=False)
        self.fuse = nn.Sequential(OrderedDict(relu=nn.ReLU(), block=conv_bn(width, width, 3)))

    def forward(self, tap: Tensor, coarser: Tensor) -> Tensor:
        x: Tensor = self.fuse(self.project(tap) + coarser)
        return x
