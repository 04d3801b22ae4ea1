"""DeepLabv3+ (Chen et al., ECCV 2018), with separable convolutions in context module and decoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.backbone import Backbone, at_stride_16, conv_bn, separable_conv
from errseg_rt.networks.context import ASPP, WIDTH, DensePredictionCell
from errseg_rt.networks.resnet import ResNet
from errseg_rt.networks.taps import Taps
from errseg_rt.networks.xception import Xception

_LOW_WIDTH = 48
_CONTEXTS: dict[str, type[ASPP] | type[DensePredictionCell]] = {"aspp": ASPP, "dpc": DensePredictionCell}


class _Decoder(nn.Module):
    """Logits at stride 4, from the context module's features and a narrow view of the backbone's low ones."""

    def __init__(self, low_channels: int, classes: int) -> None:
        super().__init__()
        self.feature_projection0 = conv_bn(low_channels, _LOW_WIDTH, 1)
        self.decoder_conv0 = separable_conv(WIDTH + _LOW_WIDTH, WIDTH)
        self.decoder_conv1 = separable_conv(WIDTH, WIDTH)
        self.logits = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        up = F.interpolate(high, size=low.shape[2:], mode="bilinear", align_corners=True)
        x = torch.cat([up, self.feature_projection0(low)], dim=1)
        logits: Tensor = self.logits(self.decoder_conv1(self.decoder_conv0(x)))
        return logits


class DeepLabV3Plus(nn.Module):
    """A semantic network with logits at stride 4, for inputs of 16n + 1 pixels a side.

    Its `high` is the context module's output; at output stride 8, that and `deep` come to stride 16 by 2x2 average
    pooling. Its convolutions are named after those in the authors' checkpoints.

    Args:
        classes: Number of classes of the logits.
        backbone: A network of output stride 8 or 16.
        context: `"aspp"`, or `"dpc"` for the dense prediction cell; also its name in the state dict.
    """

    high_channels = WIDTH
    align_corners = True

    def __init__(self, classes: int, backbone: Backbone, context: str = "aspp") -> None:
        super().__init__()
        self.classes = classes
        self.low_channels = backbone.low_channels
        self.mid_channels = backbone.mid_channels
        self.deep_channels = backbone.deep_channels
        self.backbone = backbone
        self.context = context
        self.add_module(context, _CONTEXTS[context](backbone.channels, backbone.output_stride))
        self.decoder = _Decoder(backbone.low_channels, classes)

    def forward(self, image: Tensor) -> Taps:
        """Taps of a normalised image `[B, 3, H, W]`."""
        features = self.backbone(image)
        high = getattr(self, self.context)(features.last)
        logits = self.decoder(features.low, high)
        stride = self.backbone.output_stride
        deep, high = (at_stride_16(tap, stride) for tap in (features.deep, high))
        return Taps(logits, features.low, features.mid, deep, high)


_BACKBONES: dict[str, Callable[[int], Backbone]] = {
    # With the multi-grid of DeepLabv3 (Chen et al., arXiv 1706.05587, section 4).
    "resnet50": partial(ResNet, 50, multi_grid=(1, 2, 4)),
    "resnet101": partial(ResNet, 101, multi_grid=(1, 2, 4)),
    "xception65": partial(Xception, 65),
    "xception71": partial(Xception, 71),
}


def deeplabv3plus(classes: int, backbone: str, output_stride: int = 16, context: str = "aspp") -> DeepLabV3Plus:
    """A DeepLabv3+ by the name of its backbone.

    Args:
        classes: Number of classes.
        backbone: `"xception65"`, whose 41.1 M parameters with 19 classes Gong et al. (2021) measure; `"resnet50"`;
            `"resnet101"`; or `"xception71"`, which the dense prediction cell was published on.
        output_stride: 8 or 16.
        context: `"aspp"` or `"dpc"`.
    """
    return DeepLabV3Plus(classes, _BACKBONES[backbone](output_stride), context)
