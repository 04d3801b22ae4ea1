"""Aligned Xception-65 and -71 (Chen et al., ECCV 2018, section 3.2 and fig. 4), dilated for segmentation."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from errseg_rt.networks.backbone import Features, conv_bn, separable_conv

_EPS = 1e-3  # of the batch norms, as in the authors' code
_ENTRY = {
    65: ((128, 2), (256, 2), (728, 2)),
    71: ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)),
}
"""Channels and stride of each block of the entry flow, by depth."""
_MIDDLE_BLOCKS = 16


class _Steps:
    """Stride and dilation of one block after the other: what may not stride dilates all that follows."""

    def __init__(self, output_stride: int) -> None:
        self.output_stride, self.reached, self.dilation = output_stride, 2, 1

    def take(self, stride: int) -> tuple[int, int]:
        """Stride and dilation of the next block."""
        dilation = self.dilation
        if self.reached * stride > self.output_stride:
            self.dilation *= stride
            return 1, dilation
        self.reached *= stride
        return stride, dilation


class _Block(nn.Module):
    """Three separable convolutions, each after a ReLU, beside a shortcut; the last one strides."""

    def __init__(
        self, inputs: int, widths: tuple[int, int, int], step: tuple[int, int] = (1, 1), *, projects: bool = True
    ) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        (first, second, third), (stride, dilation) = widths, step
        self.separable_conv1 = separable_conv(inputs, first, dilation=dilation, relu=False, eps=_EPS)
        self.separable_conv2 = separable_conv(first, second, dilation=dilation, relu=False, eps=_EPS)
        self.separable_conv3 = separable_conv(second, third, stride=stride, dilation=dilation, relu=False, eps=_EPS)
        self.shortcut = conv_bn(inputs, third, 1, stride=stride, relu=False, eps=_EPS) if projects else nn.Identity()

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
    def __init__(self, depth: int, steps: _Steps) -> None:
        super().__init__()
        self.conv1_1 = conv_bn(3, 32, 3, stride=2, eps=_EPS)
        self.conv1_2 = conv_bn(32, 64, 3, eps=_EPS)
        self.blocks: list[str] = []
        inputs = 64
        for number, (width, stride) in enumerate(_ENTRY[depth], start=1):
            step = steps.take(stride)
            self.blocks.append(f"block{number}")
            self.add_module(self.blocks[-1], _Block(inputs, (width, width, width), step))
            inputs = width
            if (step[0], steps.reached) == (2, 8):
                self.fine = self.blocks[-1]  # goes from stride 4 to 8

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.conv1_2(self.conv1_1(image))
        low = mid = x
        for name in self.blocks:
            block: _Block = getattr(self, name)
            if name == self.fine:
                low = block.begin(x)
                x = mid = block.finish(x, low)
            else:
                x = block(x)
        return low, mid, x


class Xception(nn.Module):
    """Strided blocks, sixteen in the middle, two at the end, the last ones dilated in place of their strides.

    `low` is what the authors' decoder reads: the second convolution, before its ReLU, of the block that goes from
    stride 4 to 8. `mid` is the output of that block, `deep` that of the middle flow, sums that no ReLU has seen yet.

    Args:
        depth: 65 or 71.
        output_stride: 8, 16, or 32 for no dilation.

    Raises:
        ValueError: There is no such depth or output stride.
    """

    low_channels = 256
    mid_channels = 256
    deep_channels = 728
    channels = 2048

    def __init__(self, depth: int, output_stride: int) -> None:
        super().__init__()
        if depth not in _ENTRY or output_stride not in (8, 16, 32):
            raise ValueError(
                f"depth is one of {sorted(_ENTRY)} and output_stride one of [8, 16, 32]: {depth = }, {output_stride = }"
            )
        self.output_stride = output_stride
        steps = _Steps(output_stride)
        self.entry_flow = _EntryFlow(depth, steps)
        middle = [_Block(728, (728, 728, 728), steps.take(1), projects=False) for _ in range(_MIDDLE_BLOCKS)]
        self.middle_flow = nn.Sequential(*middle)
        last = _Block(728, (728, 1024, 1024), steps.take(2))
        widths = (1024, 1536, 1536, 2048)
        _, rate = steps.take(1)
        convs = [separable_conv(*widths[i : i + 2], dilation=rate, eps=_EPS) for i in range(3)]
        block2 = nn.Sequential(OrderedDict((f"separable_conv{i}", conv) for i, conv in enumerate(convs, start=1)))
        self.exit_flow = nn.Sequential(OrderedDict(block1=last, block2=block2))

    def forward(self, image: Tensor) -> Features:
        """Features of an image `[B, 3, H, W]`: RGB in -1..1 for the authors' weights."""
        low, mid, x = self.entry_flow(image)
        deep = self.middle_flow(x)
        return Features(low, mid, deep, self.exit_flow(deep))
