"""A user's network with one sigmoid logit: two small U-Nets in a row, which find the vessels of a retina.

The names of its modules are those of the published checkpoint, so that its state dict fits.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTHS = (8, 16, 32)


def _conv_relu_bn(channels_in: int, channels: int) -> list[nn.Module]:
    """A 3x3 convolution; its norm comes after the ReLU."""
    return [nn.Conv2d(channels_in, channels, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(channels)]


class ConvBlock(nn.Module):
    """Two convolutions beside a shortcut, after max pooling where `pool` is true."""

    def __init__(self, channels_in: int, channels: int, pool: bool = False) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.block = nn.Sequential(*_conv_relu_bn(channels_in, channels), *_conv_relu_bn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` to `[N, channels, H, W]`, half the size with `pool`."""
        x = self.pool(x)
        return torch.add(self.block(x), self.shortcut(x))


class Up(nn.Module):
    """Doubles the size: a transposed convolution, beside the skip connection's convolution."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.up_layer = nn.Module()
        self.up_layer.block = nn.Sequential(nn.ConvTranspose2d(channels_in, channels, 2, stride=2))
        self.conv_bridge_layer = nn.Module()
        self.conv_bridge_layer.block = nn.Sequential(*_conv_relu_bn(channels, channels))
        self.conv_layer = ConvBlock(2 * channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` with a skip of twice its size, to `[N, channels, 2 H, 2 W]`."""
        beside = self.conv_bridge_layer.block(skip)
        out: Tensor = self.conv_layer(torch.cat([self.up_layer.block(x), beside], dim=1))
        return out


class UNet(nn.Module):
    """Three levels of widths 8, 16, 32, and one logit."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels_in, WIDTHS[0])
        self.down_path = nn.ModuleList(ConvBlock(a, b, pool=True) for a, b in pairwise(WIDTHS))
        self.up_path = nn.ModuleList(Up(a, b) for a, b in pairwise(WIDTHS[::-1]))
        self.final = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels_in, H, W]`, sides multiples of 4, to `[N, 1, H, W]`."""
        levels = [self.first(x)]
        for down in self.down_path:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up in self.up_path:
            x = up(x, levels.pop())
        out: Tensor = self.final(x)
        return out


class WNet(nn.Module):
    """The second U-Net sees the image and the first one's logit."""

    def __init__(self) -> None:
        super().__init__()
        self.unet1 = UNet(3)
        self.unet2 = UNet(4)

    def forward(self, image: Tensor) -> Tensor:
        """Logits `[N, 1, H, W]` of an RGB image in 0..1, `[N, 3, H, W]` with sides that are multiples of 4."""
        out: Tensor = self.unet2(torch.cat([image, self.unet1(image)], dim=1))
        return out


def load(path: str) -> WNet:
    """The network of a training checkpoint, ready to infer."""
    network = WNet()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"])
    return network.eval()
