"""PSPNet (Zhao et al., CVPR 2017): pyramid pooling over a ResNet of output stride 8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.backbone import Backbone, conv_bn
from errseg_rt.networks.resnet import ResNet
from errseg_rt.networks.taps import Taps

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


def _halve(x: Tensor) -> Tensor:
    """2x2 average pooling, sides rounded up; an odd last row or column stands for two."""
    # Padding always, and dropping what is too much, keeps a dynamic size free of branches.
    return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2)


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
    """A semantic network with logits at stride 8, for inputs of 8n + 1 pixels a side.

    Its `high` is what the pyramid pooling generates, concatenated (Gong et al. 2021, section 5.4), its `deep` the third
    stage's output; both come from stride 8 by 2x2 average pooling. The auxiliary head of its authors' training is left
    out.

    Args:
        classes: Number of classes of the logits.
        backbone: A network of output stride 8.
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
        return Taps(logits, features.low, features.mid, _halve(features.deep), _halve(high))


def pspnet_resnet50(classes: int) -> PSPNet:
    """The size that its authors publish for ADE20K."""
    return PSPNet(classes, ResNet(50, output_stride=8, deep_stem=True))


def pspnet_resnet101(classes: int) -> PSPNet:
    """The size that its authors publish for Cityscapes, 79.70 mIoU on val, which Gong et al. (2021) start from."""
    return PSPNet(classes, ResNet(101, output_stride=8, deep_stem=True))
