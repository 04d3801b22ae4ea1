"""DeepLabv3+ (Chen et al., ECCV 2018) at output stride 16, with separable convolutions in ASPP and decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.backbone import Backbone, conv_bn, separable_conv
from errseg_rt.networks.resnet import ResNet
from errseg_rt.networks.taps import Taps
from errseg_rt.networks.xception import Xception65

_WIDTH = 256
_LOW_WIDTH = 48
_RATES = (6, 12, 18)  # of the ASPP at output stride 16
_DROPOUT = 0.1


class _ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the whole map's mean, each pixel, and three dilations, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.image_pooling = conv_bn(channels, _WIDTH, 1)
        self.aspp0 = conv_bn(channels, _WIDTH, 1)
        self.aspp1, self.aspp2, self.aspp3 = (separable_conv(channels, _WIDTH, dilation=rate) for rate in _RATES)
        self.concat_projection = conv_bn(5 * _WIDTH, _WIDTH, 1)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        image = self.image_pooling(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = [image, self.aspp0(x), self.aspp1(x), self.aspp2(x), self.aspp3(x)]
        high: Tensor = self.dropout(self.concat_projection(torch.cat(branches, dim=1)))
        return high


class _Decoder(nn.Module):
    """Logits at stride 4, from the ASPP's features and a narrow view of the backbone's low ones."""

    def __init__(self, low_channels: int, classes: int) -> None:
        super().__init__()
        self.feature_projection0 = conv_bn(low_channels, _LOW_WIDTH, 1)
        self.decoder_conv0 = separable_conv(_WIDTH + _LOW_WIDTH, _WIDTH)
        self.decoder_conv1 = separable_conv(_WIDTH, _WIDTH)
        self.logits = nn.Conv2d(_WIDTH, classes, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        up = F.interpolate(high, size=low.shape[2:], mode="bilinear", align_corners=True)
        x = torch.cat([up, self.feature_projection0(low)], dim=1)
        logits: Tensor = self.logits(self.decoder_conv1(self.decoder_conv0(x)))
        return logits


class DeepLabV3Plus(nn.Module):
    """A semantic network with logits at stride 4, for inputs of 16n + 1 pixels a side.

    Its `high` is the ASPP's output; its convolutions are named after those in the authors' checkpoints.

    Args:
        classes: Number of classes of the logits.
        backbone: A network of output stride 16.
    """

    high_channels = _WIDTH
    align_corners = True

    def __init__(self, classes: int, backbone: Backbone) -> None:
        super().__init__()
        self.classes = classes
        self.low_channels = backbone.low_channels
        self.mid_channels = backbone.mid_channels
        self.deep_channels = backbone.deep_channels
        self.backbone = backbone
        self.aspp = _ASPP(backbone.channels)
        self.decoder = _Decoder(backbone.low_channels, classes)

    def forward(self, image: Tensor) -> Taps:
        """Taps of a normalised image `[B, 3, H, W]`."""
        features = self.backbone(image)
        high = self.aspp(features.last)
        logits = self.decoder(features.low, high)
        return Taps(logits, features.low, features.mid, features.deep, high)


def deeplabv3plus_xception65(classes: int) -> DeepLabV3Plus:
    """The network that Gong et al. (2021) measure: 41.1 M parameters with 19 classes."""
    return DeepLabV3Plus(classes, Xception65())


def deeplabv3plus_resnet50(classes: int) -> DeepLabV3Plus:
    """The same head on a ResNet-50 with the multi-grid of DeepLabv3 (Chen et al., arXiv 1706.05587, section 4)."""
    return DeepLabV3Plus(classes, ResNet(50, output_stride=16, multi_grid=(1, 2, 4)))
