"""ResNet-50, -101 and -152 (He et al., CVPR 2016), dilated for segmentation (Chen et al., arXiv 1706.05587)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.backbone import Features, conv_bn

_BLOCKS = {50: (3, 4, 6), 101: (3, 4, 23), 152: (3, 8, 36)}
"""Blocks of the first three stages, by depth; the fourth has three."""

_EXPANSION = 4
_STEPS = {
    8: ((1, 1), (2, 1), (1, 2), (1, 4)),
    16: ((1, 1), (2, 1), (2, 1), (1, 2)),
    32: ((1, 1), (2, 1), (2, 1), (2, 1)),
}
"""Stride and dilation of each stage, by output stride."""


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        outputs = width * _EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()  # the identity
        if inputs != outputs:
            self.downsample.extend([nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)])

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.dropout(F.relu(self.bn2(self.conv2(y))), self.dropout, self.training)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _stage(
    inputs: int, width: int, step: tuple[int, int], grid: tuple[int, ...], dropout: float = 0.0
) -> nn.Sequential:
    stride, dilation = step
    first = _Bottleneck(inputs, width, stride, dilation * grid[0], dropout)
    outputs = width * _EXPANSION
    return nn.Sequential(first, *(_Bottleneck(outputs, width, 1, dilation * factor, dropout) for factor in grid[1:]))


class ResNet(nn.Module):
    """A bottleneck ResNet without its classifier, its last stages dilated in place of their strides.

    Its four features are the outputs of its stages. Without a deep stem its state dict has torchvision's names, so
    that weights for ImageNet fit but for `fc`.

    Args:
        depth: 50, 101 or 152.
        output_stride: 8, 16, or 32 for no dilation.
        deep_stem: Three 3x3 convolutions in place of the first one of 7x7, as in PSPNet.
        multi_grid: Factors on the dilations of the last stage's blocks.
        dropout: Share of the values that the last stage's blocks drop in training, before their third convolution.

    Raises:
        ValueError: There is no such depth or output stride.
    """

    low_channels = 256
    mid_channels = 512
    deep_channels = 1024
    channels = 2048

    def __init__(
        self,
        depth: int,
        output_stride: int,
        *,
        deep_stem: bool = False,
        multi_grid: tuple[int, int, int] = (1, 1, 1),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth not in _BLOCKS or output_stride not in _STEPS:
            raise ValueError(
                f"depth is one of {sorted(_BLOCKS)} and output_stride one of {sorted(_STEPS)}: "
                f"{depth = }, {output_stride = }"
            )
        self.output_stride = output_stride
        stem = 128 if deep_stem else 64
        self.conv1: nn.Module = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        if deep_stem:
            last = nn.Conv2d(64, stem, 3, padding=1, bias=False)
            self.conv1 = nn.Sequential(conv_bn(3, 64, 3, stride=2), conv_bn(64, 64, 3), last)
        self.bn1 = nn.BatchNorm2d(stem)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        grids = [(1,) * count for count in _BLOCKS[depth]]
        steps = _STEPS[output_stride]
        self.layer1 = _stage(stem, 64, steps[0], grids[0])
        self.layer2 = _stage(256, 128, steps[1], grids[1])
        self.layer3 = _stage(512, 256, steps[2], grids[2])
        self.layer4 = _stage(1024, 512, steps[3], multi_grid, dropout)

    def forward(self, image: Tensor) -> Features:
        """Features of a normalised image `[B, 3, H, W]`."""
        low = self.layer1(self.maxpool(F.relu(self.bn1(self.conv1(image)))))
        mid = self.layer2(low)
        deep = self.layer3(mid)
        return Features(low, mid, deep, self.layer4(deep))
