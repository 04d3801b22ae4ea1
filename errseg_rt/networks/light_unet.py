"""A U-Net (Ronneberger et al., MICCAI 2015) narrow enough for a CPU, whose grid is finer than stride 4."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.backbone import conv_bn
from errseg_rt.networks.taps import Taps

_WIDTHS = (16, 32, 64, 64)
"""Channels of the encoder at strides 2, 4, 8 and 16."""
_LOW = 24


class _Residual(nn.Module):
    """Two 3x3 convolutions around which the input passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels, 3)
        self.second = conv_bn(channels, channels, 3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + x)


class _Up(nn.Module):
    """The encoder's features at a stride, with those of the coarser stride below them added."""

    def __init__(self, coarser: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.below = conv_bn(coarser, outputs, 1, relu=False)
        self.beside = conv_bn(channels, outputs, 1, relu=False)
        self.fuse = conv_bn(outputs, outputs, 3)

    def forward(self, coarser: Tensor, x: Tensor) -> Tensor:
        up = F.interpolate(self.below(coarser), size=x.shape[2:], mode="bilinear", align_corners=False)
        fused: Tensor = self.fuse(F.relu(up + self.beside(x)))
        return fused


class LightUNet(nn.Module):
    """A semantic network of 0.3 M parameters with logits at stride 2, trained from scratch, for small things.

    Sums stand where Ronneberger et al. concatenate, and residual blocks where they have plain ones, at a quarter of
    their channels. `low` and `mid` are the decoder's features at strides 2 and 4, `high` those at stride 8, and `deep`
    the encoder's there.

    Args:
        classes: Number of classes of the logits.
    """

    low_channels, mid_channels = _LOW, _WIDTHS[1]
    deep_channels = high_channels = _WIDTHS[2]
    align_corners = False
    grid_stride = 2

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        first, second, third, fourth = _WIDTHS
        self.stem = nn.Sequential(conv_bn(3, first, 3, stride=2), conv_bn(first, first, 3))
        self.down4, self.down8, self.down16 = (
            nn.Sequential(conv_bn(inputs, outputs, 3, stride=2), _Residual(outputs))
            for inputs, outputs in ((first, second), (second, third), (third, fourth))
        )
        self.up8, self.up4, self.up2 = _Up(fourth, third, third), _Up(third, second, second), _Up(second, first, _LOW)
        self.logits = nn.Conv2d(_LOW, classes, 1)

    def forward(self, image: Tensor) -> Taps:
        """Taps of a normalised image `[B, 3, H, W]`."""
        stem = self.stem(image)
        four = self.down4(stem)
        deep = self.down8(four)
        high = self.up8(self.down16(deep), deep)
        mid = self.up4(high, four)
        low = self.up2(mid, stem)
        return Taps(self.logits(low), low, mid, deep, high)
