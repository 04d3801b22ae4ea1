"""Context modules of DeepLab: atrous spatial pyramid pooling, and the dense prediction cell found by search."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from errseg_rt.networks.backbone import conv_bn, separable_conv

WIDTH = 256
"""Channels of either module's output."""
_RATES = (6, 12, 18)  # of the ASPP at output stride 16
_CELL = ((-1, (1, 6)), (0, (18, 15)), (1, (6, 3)), (0, (1, 1)), (0, (6, 21)))
"""Of each branch of the cell: the branch that it reads (-1: the backbone), and its dilations, down and across."""
_DROPOUT = 0.1


class ASPP(nn.Module):
    """The whole map's mean, each pixel, and three dilations, side by side (Chen et al., ECCV 2018).

    Args:
        channels: Channels of its input.
        output_stride: Stride of its input; at 8 the dilations are twice those at 16.
    """

    def __init__(self, channels: int, output_stride: int) -> None:
        super().__init__()
        factor = 16 // output_stride
        self.image_pooling = conv_bn(channels, WIDTH, 1)
        self.aspp0 = conv_bn(channels, WIDTH, 1)
        self.aspp1, self.aspp2, self.aspp3 = (separable_conv(channels, WIDTH, dilation=factor * r) for r in _RATES)
        self.concat_projection = conv_bn(5 * WIDTH, WIDTH, 1)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 256, h, w]` of features `[B, channels, h, w]`."""
        image = self.image_pooling(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = [image, self.aspp0(x), self.aspp1(x), self.aspp2(x), self.aspp3(x)]
        high: Tensor = self.dropout(self.concat_projection(torch.cat(branches, dim=1)))
        return high


class DensePredictionCell(nn.Module):
    """Five separable convolutions, some of which read another's output (Chen et al., NeurIPS 2018, fig. 5a).

    Args:
        channels: Channels of its input.
        output_stride: Stride of its input; at 8 the dilations are twice those at 16.
    """

    def __init__(self, channels: int, output_stride: int) -> None:
        super().__init__()
        factor = 16 // output_stride
        for index, (source, (down, across)) in enumerate(_CELL):
            inputs = channels if source < 0 else WIDTH
            branch = separable_conv(inputs, WIDTH, dilation=(factor * down, factor * across))
            self.add_module(f"branch{index}", branch)
        self.dropout = nn.Dropout(_DROPOUT)
        self.concat_projection = conv_bn(len(_CELL) * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 256, h, w]` of features `[B, channels, h, w]`."""
        outputs: list[Tensor] = []
        for index, (source, _) in enumerate(_CELL):
            outputs.append(getattr(self, f"branch{index}")(x if source < 0 else outputs[source]))
        high: Tensor = self.concat_projection(self.dropout(torch.cat(outputs, dim=1)))
        return high
