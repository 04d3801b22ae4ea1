"""What a segmentation head needs of the network below it, and the two convolutions that all of them are built of."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class Features(NamedTuple):
    """Outputs of a backbone, from fine to coarse."""

    low: Tensor  # [B, low_channels, h4, w4], stride 4
    mid: Tensor  # [B, mid_channels, h8, w8], stride 8
    deep: Tensor  # [B, deep_channels, h', w'], before the last stage: stride 16, or 8 where that is the output stride
    last: Tensor  # [B, channels, h'', w''], at the output stride


class Backbone(Protocol):
    """A network that hands on its features; the channel counts size what reads them."""

    low_channels: int
    mid_channels: int
    deep_channels: int
    channels: int
    output_stride: int

    def __call__(self, image: Tensor) -> Features:
        """Features of a normalised image `[B, 3, H, W]`."""
        ...


def at_stride_16(x: Tensor, stride: int) -> Tensor:
    """Features at stride 16: those at stride 8 by 2x2 average pooling, sides rounded up, others as they are.

    Args:
        x: `[B, C, h, w]`; an odd last row or column stands for two.
        stride: Its stride.
    """
    if stride != 8:
        return x
    # Padding always, and dropping what is too much, keeps a dynamic size free of branches.
    return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2)


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    relu: bool = True,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution without bias, whose output has its input's sides over the stride, rounded up; BatchNorm; ReLU."""
    down, across = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    padding = (down * (kernel // 2), across * (kernel // 2))
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, padding, (down, across), groups, bias=False),
        bn=nn.BatchNorm2d(outputs, eps=eps),
    )
    if relu:
        layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


def separable_conv(
    inputs: int,
    outputs: int,
    *,
    stride: int = 1,
    dilation: int | tuple[int, int] = 1,
    relu: bool = True,
    eps: float = 1e-5,
) -> nn.Sequential:
    """A 3x3 convolution of each channel, then a 1x1 across channels, each with BatchNorm and, if wanted, ReLU."""
    return nn.Sequential(
        OrderedDict(
            depthwise=conv_bn(inputs, inputs, 3, stride=stride, dilation=dilation, groups=inputs, relu=relu, eps=eps),
            pointwise=conv_bn(inputs, outputs, 1, relu=relu, eps=eps),
        )
    )
