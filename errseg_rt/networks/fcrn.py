"""Fully convolutional residual networks (Wu et al. 2016, section 2.3): a ResNet whose classifier sees a wide field."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from errseg_rt.networks.backbone import at_stride_16
from errseg_rt.networks.resnet import ResNet
from errseg_rt.networks.taps import Taps

KERNELS = (3, 5, 7)
"""Sides of the classifier's kernel in the paper's Tables 1 and 3."""


class FCRN(nn.Module):
    """A semantic network with logits at its backbone's output stride, for inputs of 16n + 1 pixels a side.

    ResNet's pooling is gone, and its linear classifier is a convolution, whose dilated kernel gives the field of view.
    There is no other context module: `high` is what the classifier reads, or its hidden layer's output where it has
    one; both this and `deep` come from stride 8 by 2x2 average pooling.

    Args:
        classes: Number of classes of the logits.
        backbone: A network of output stride 8 or 16.
        kernel: Side of the classifier's kernel, one of `KERNELS`.
        dilation: Its dilation, in pixels at the output stride; 6, 12 or 18 in the paper.
        hidden: Channels of a hidden layer, which then has that kernel, before a 1x1 classifier: the paper's multi-layer
            classifier, whose shape it does not tell. 0: the classifier is linear.

    Raises:
        ValueError: There is no such kernel, or the dilation or the hidden layer has no size.
    """

    align_corners = True

    def __init__(self, classes: int, backbone: ResNet, kernel: int = 5, dilation: int = 12, hidden: int = 0) -> None:
        super().__init__()
        if kernel not in KERNELS or dilation < 1 or hidden < 0:
            raise ValueError(f"kernel is one of {KERNELS}, dilation 1 or more: {kernel = }, {dilation = }, {hidden = }")
        self.classes = classes
        self.low_channels = backbone.low_channels
        self.mid_channels = backbone.mid_channels
        self.deep_channels = backbone.deep_channels
        self.high_channels = hidden or backbone.channels
        self.backbone = backbone
        padding = dilation * (kernel // 2)
        wide = nn.Conv2d(backbone.channels, hidden or classes, kernel, padding=padding, dilation=dilation)
        self.hidden = nn.Sequential()  # the identity
        if hidden:
            self.hidden = nn.Sequential(OrderedDict(conv=wide, relu=nn.ReLU()))
        self.logits = nn.Conv2d(hidden, classes, 1) if hidden else wide

    @property
    def field_of_view(self) -> int:
        """Side, in input pixels, of the window whose features the classifier sees: (dilation (kernel - 1) + 1) stride.

        It is the paper's, which counts cells of the map that the classifier reads, not how far these see themselves.
        """
        wide = self.hidden.get_submodule("conv") if len(self.hidden) else self.logits
        assert isinstance(wide, nn.Conv2d)
        return (wide.dilation[0] * (wide.kernel_size[0] - 1) + 1) * self.backbone.output_stride

    def forward(self, image: Tensor) -> Taps:
        """Taps of a normalised image `[B, 3, H, W]`."""
        features = self.backbone(image)
        read = self.hidden(features.last)
        stride = self.backbone.output_stride
        deep, high = (at_stride_16(tap, stride) for tap in (features.deep, read))
        return Taps(self.logits(read), features.low, features.mid, deep, high)


def fcrn(
    classes: int,
    depth: int,
    output_stride: int = 8,
    kernel: int = 5,
    dilation: int = 12,
    hidden: int = 0,
    dropout: float = 0.0,
) -> FCRN:
    """An FCRN by the depth of its ResNet.

    Args:
        classes: Number of classes.
        depth: 50, 101 or 152.
        output_stride: 8 or 16: the paper's resolutions 1/8 and 1/16.
        kernel: As `FCRN` has it; 5 with dilation 12, a field of 392 pixels, is the paper's best.
        dilation: As `FCRN` has it.
        hidden: As `FCRN` has it.
        dropout: Share of the values that the last stage's residual blocks drop in training.
    """
    return FCRN(classes, ResNet(depth, output_stride, dropout=dropout), kernel, dilation, hidden)
