"""SqueezeNAS "MAC large": a semantic network found by architecture search (Shaw et al., ICCV Workshops 2019)."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.taps import Taps


class _BlockSpec(NamedTuple):
    kernel: int
    expansion: int
    groups: int
    dilation: int
    channels: int
    stride: int


_BLOCKS = (
    _BlockSpec(3, 1, 2, 1, 16, 1),
    _BlockSpec(3, 6, 1, 1, 24, 2),
    _BlockSpec(3, 1, 2, 2, 24, 1),
    _BlockSpec(3, 1, 2, 1, 24, 1),
    _BlockSpec(3, 1, 2, 1, 24, 1),
    _BlockSpec(5, 6, 1, 1, 32, 2),
    _BlockSpec(5, 6, 1, 1, 32, 1),
    _BlockSpec(3, 6, 1, 2, 32, 1),
    _BlockSpec(5, 6, 1, 1, 32, 1),
    _BlockSpec(5, 6, 1, 1, 64, 2),
    _BlockSpec(5, 6, 1, 1, 64, 1),
    _BlockSpec(5, 1, 1, 1, 64, 1),
    _BlockSpec(3, 3, 1, 1, 64, 1),
    _BlockSpec(5, 6, 1, 1, 96, 1),
    _BlockSpec(3, 1, 1, 1, 96, 1),
    _BlockSpec(5, 1, 1, 1, 96, 1),
    _BlockSpec(3, 3, 1, 2, 96, 1),
    _BlockSpec(3, 6, 1, 2, 160, 1),
    _BlockSpec(3, 1, 2, 2, 160, 1),
    _BlockSpec(3, 1, 2, 2, 160, 1),
    _BlockSpec(3, 1, 2, 2, 160, 1),
    _BlockSpec(3, 1, 1, 2, 160, 1),
)
_LOW, _MID, _DEEP = 4, 8, 21  # blocks whose outputs are the taps at strides 4, 8 and 16
_POOL = 49  # window of the gate's average pooling, in pixels at stride 16
_POOL_STRIDE = (16, 20)


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, spec: _BlockSpec) -> None:
        super().__init__()
        inner = channels * spec.expansion
        self.op = nn.Sequential(
            nn.Conv2d(channels, inner, 1, groups=spec.groups, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(
                inner,
                inner,
                spec.kernel,
                stride=spec.stride,
                padding=spec.dilation * (spec.kernel // 2),
                dilation=spec.dilation,
                groups=inner,
                bias=False,
            ),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, spec.channels, 1, groups=spec.groups, bias=False),
            nn.BatchNorm2d(spec.channels),
        )
        self.is_residual = spec.stride == 1 and channels == spec.channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.op(x)
        return x + y if self.is_residual else y


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        inputs = (16, *(spec.channels for spec in _BLOCKS))
        self.residuals = nn.ModuleList(_InvertedResidual(c, spec) for c, spec in zip(inputs, _BLOCKS, strict=False))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.conv1(image)
        outputs = []
        for block in self.residuals:
            x = block(x)
            outputs.append(x)
        return outputs[_LOW], outputs[_MID], outputs[_DEEP]


class _LiteASPP(nn.Module):
    """Head of MobileNetV3 (Howard et al. 2019, fig. 10), with the names of the authors' weight file."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._1x1_TL = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(160, 128, 1, bias=False), bn=nn.BatchNorm2d(128), relu=nn.ReLU())
        )
        self._1x1_BL = nn.Conv2d(160, 128, 1)
        self._1x1_TR = nn.Conv2d(128, classes, 1)
        self._1x1_BR = nn.Conv2d(32, classes, 1)

    def forward(self, os8: Tensor, os16: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(self._1x1_BL(_pool(os16)))
        gate = F.interpolate(gate, size=os16.shape[2:], mode="bilinear", align_corners=False)
        high = self._1x1_TL(os16) * gate
        # The authors enlarge first: interpolation and 1x1 convolution commute, and 128 channels are more than classes.
        up = F.interpolate(self._1x1_TR(high), size=os8.shape[2:], mode="bilinear", align_corners=False)
        return up + self._1x1_BR(os8), high


def _pool(x: Tensor) -> Tensor:
    """Average over 49x49 windows; a map smaller than the window is averaged whole, also with dynamic sizes."""
    height, width = x.shape[2:]
    pad = [0, torch.sym_max(_POOL - width, 0), 0, torch.sym_max(_POOL - height, 0)]  # type: ignore[no-untyped-call]
    # Padding with zeros and dividing by the pooled mask keeps the window a constant, which an exported graph needs.
    total = F.avg_pool2d(F.pad(x, pad), _POOL, _POOL_STRIDE)
    share = F.avg_pool2d(F.pad(torch.ones_like(x[:, :1]), pad), _POOL, _POOL_STRIDE)
    return total / share


class SqueezeNAS(nn.Module):
    """The semantic network: 0.70 M parameters, logits at stride 8.

    Its state dict has the names of the authors' file, so that `squeezenas_mac_large_cityscapes.pth` loads strictly.

    Args:
        classes: Number of classes of the logits.
    """

    low_channels = 24
    mid_channels = 32
    deep_channels = 160
    high_channels = 128
    align_corners = True

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.encoder = _Encoder()
        self.decoder = _LiteASPP(classes)

    def forward(self, image: Tensor) -> Taps:
        """Taps of an image `[B, 3, H, W]`: RGB in 0..1, minus the ImageNet mean, over its standard deviation."""
        low, mid, deep = self.encoder(image)
        logits, high = self.decoder(mid, deep)
        return Taps(logits, low, mid, deep, high)
