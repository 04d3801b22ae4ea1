"""PSPNet (Zhao et al., CVPR 2017): pyramid pooling over a dilated backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.backbone import Backbone, at_stride_16, conv_bn
from errseg_rt.networks.resnet import ResNet
from errseg_rt.networks.taps import Taps
from errseg_rt.networks.xception import Xception

_BINS = (1, 2, 3, 6)
_WIDTH = 512
_DROPOUT = 0.1


def _bin_weights(size: int, bins: int, like: Tensor) -> Tensor:
    """Weights `[bins, size]` of each pixel in adaptive average pooling; `size` may be symbolic, as in an export."""
    first = torch.arange(bins, device=like.device)[:, None] * size
    pixel = torch.arange(size, device=like.device) * bins
    # Bin i reaches from floor(i size / bins) to ceil((i + 1) size / bins), here without a division.
    inside = ((pixel + bins > first) & (pixel < first + size)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


def pool_bins(x: Tensor, bins: int, columns: int | None = None) -> Tensor:
    """Adaptive average pooling of `[B, C, h, w]` to `[B, C, bins, bins]`, or to other `columns`.

    As matrix products, since ONNX has no pooling whose windows follow from a dynamic size.
    """
    rows, cols = (_bin_weights(size, n, x) for size, n in zip(x.shape[2:], (bins, columns or bins), strict=True))
    return rows @ (x @ cols.T)


class _PyramidPooling(nn.Module):
    """The map's averages in 1, 4, 9 and 36 bins, each narrowed and enlarged to the map again, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(conv_bn(channels, _WIDTH, 1) for _ in _BINS)

    def forward(self, x: Tensor) -> Tensor:
        levels = [level(pool_bins(x, bins)) for bins, level in zip(_BINS, self.levels, strict=True)]
        size = x.shape[2:]
        return torch.cat([F.interpolate(y, size=size, mode="bilinear", align_corners=True) for y in levels], dim=1)


class PSPNet(nn.Module):
    """A semantic network with logits at its backbone's output stride, 8 or 16, for inputs of 16n + 1 pixels a side.

    Its `high` is what the pyramid pooling generates, concatenated (Gong et al. 2021, section 5.4), its `deep` what the
    backbone has before its last stage; both come from stride 8 by 2x2 average pooling. The auxiliary head of its
    authors' training is left out.

    Args:
        classes: Number of classes of the logits.
        backbone: A network of output stride 8, as its authors have it, or 16.
    """

    high_channels = len(_BINS) * _WIDTH
    align_corners = True

    def __init__(self, classes: int, backbone: Backbone) -> None:
        super().__init__()
        self.classes = classes
        self.low_channels = backbone.low_channels
        self.mid_channels = backbone.mid_channels
        self.deep_channels = backbone.deep_channels
        self.backbone = backbone
        self.pyramid = _PyramidPooling(backbone.channels)
        self.fuse = conv_bn(backbone.channels + self.high_channels, _WIDTH, 3)
        self.dropout = nn.Dropout2d(_DROPOUT)
        self.logits = nn.Conv2d(_WIDTH, classes, 1)

    def forward(self, image: Tensor) -> Taps:
        """Taps of a normalised image `[B, 3, H, W]`."""
        features = self.backbone(image)
        high = self.pyramid(features.last)
        logits = self.logits(self.dropout(self.fuse(torch.cat([features.last, high], dim=1))))
        stride = self.backbone.output_stride
        deep, high = (at_stride_16(tap, stride) for tap in (features.deep, high))
        return Taps(logits, features.low, features.mid, deep, high)


_BACKBONES: dict[str, Callable[[int], Backbone]] = {
    "resnet50": partial(ResNet, 50, deep_stem=True),
    "resnet101": partial(ResNet, 101, deep_stem=True),
    "xception65": partial(Xception, 65),
}


def pspnet(classes: int, backbone: str, output_stride: int = 8) -> PSPNet:
    """A PSPNet by the name of its backbone.

    Args:
        classes: Number of classes.
        backbone: `"resnet50"`, the size that its authors publish for ADE20K; `"resnet101"`, that for Cityscapes, 79.70
            mIoU on val, which Gong et al. (2021) start from; or `"xception65"`.
        output_stride: 8 or 16.
    """
    return PSPNet(classes, _BACKBONES[backbone](output_stride))
