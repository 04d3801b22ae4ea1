"""Aligned Xception-65 (Chen et al., ECCV 2018, section 3.2 and fig. 4), at output stride 16."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from errseg_rt.networks.backbone import Features, conv_bn, separable_conv

_EPS = 1e-3  # of the batch norms, as in the authors' code
_MIDDLE_BLOCKS = 16


class _Block(nn.Module):
    """Three separable convolutions, each after a ReLU, beside a shortcut; the last one strides."""

    def __init__(self, inputs: int, widths: tuple[int, int, int], stride: int = 1) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        first, second, third = widths
        self.separable_conv1 = separable_conv(inputs, first, relu=False, eps=_EPS)
        self.separable_conv2 = separable_conv(first, second, relu=False, eps=_EPS)
        self.separable_conv3 = separable_conv(second, third, stride=stride, relu=False, eps=_EPS)
        same = inputs == third and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inputs, third, 1, stride=stride, relu=False, eps=_EPS)

    def begin(self, x: Tensor) -> Tensor:
        """The first two convolutions, at the stride of `x`."""
        begun: Tensor = self.separable_conv2(self.relu(self.separable_conv1(self.relu(x))))
        return begun

    def finish(self, x: Tensor, begun: Tensor) -> Tensor:
        """The third, and the sum with the shortcut from `x`."""
        finished: Tensor = self.separable_conv3(self.relu(begun)) + self.shortcut(x)
        return finished

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, self.begin(x))


class _EntryFlow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1_1 = conv_bn(3, 32, 3, stride=2, eps=_EPS)
        self.conv1_2 = conv_bn(32, 64, 3, eps=_EPS)
        self.block1 = _Block(64, (128, 128, 128), stride=2)
        self.block2 = _Block(128, (256, 256, 256), stride=2)
        self.block3 = _Block(256, (728, 728, 728), stride=2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.block1(self.conv1_2(self.conv1_1(image)))
        low = self.block2.begin(x)
        mid = self.block2.finish(x, low)
        return low, mid, self.block3(mid)


class Xception65(nn.Module):
    """Three strided blocks, sixteen in the middle, two at the end, the last of them dilated; 37.9 M parameters.

    `low` is what the authors' decoder reads: the second convolution of the second block, before its ReLU. `mid` and
    `deep` are the outputs of the second block and of the middle flow, sums that no ReLU has seen yet.
    """

    low_channels = 256
    mid_channels = 256
    deep_channels = 728
    channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.entry_flow = _EntryFlow()
        self.middle_flow = nn.Sequential(*(_Block(728, (728, 728, 728)) for _ in range(_MIDDLE_BLOCKS)))
        self.exit_flow = nn.Sequential(
            OrderedDict(
                block1=_Block(728, (728, 1024, 1024)),
                block2=nn.Sequential(
                    OrderedDict(
                        separable_conv1=separable_conv(1024, 1536, dilation=2, eps=_EPS),
                        separable_conv2=separable_conv(1536, 1536, dilation=2, eps=_EPS),
                        separable_conv3=separable_conv(1536, 2048, dilation=2, eps=_EPS),
                    )
                ),
            )
        )

    def forward(self, image: Tensor) -> Features:
        """Features of an image `[B, 3, H, W]`: RGB in -1..1 for the authors' weights."""
        low, mid, x = self.entry_flow(image)
        deep = self.middle_flow(x)
        return Features(low, mid, deep, self.exit_flow(deep))
