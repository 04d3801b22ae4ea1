"""EfficientViT-B0 for segmentation: attention whose cost is linear in pixels (Cai et al., ICCV 2023)."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.taps import Taps

_STEM, _WIDTHS = 8, (16, 32, 64, 128)  # strides 2; 4, 8, 16, 32
_EXPANSION = 4
_HEAD = 32
_HEAD_DIM = 16  # channels of a query, a key or a value
_KERNEL = 5  # of the tokens that attention sees beside each pixel's own
_EPS = 1e-5  # of attention's denominator, as the weights were trained


def _conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, norm: bool = True, act: bool = True
) -> nn.Sequential:
    """Convolution with BatchNorm or with a bias, and hard-swish where wanted; sides over the stride, rounded up."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not norm)
    )
    if norm:
        layers["norm"] = nn.BatchNorm2d(outputs)
    if act:
        layers["act"] = nn.Hardswish()
    return nn.Sequential(layers)


class _Main(nn.Module):
    """What a block computes, under the name that weight files have for it."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.main = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return y


def _depthwise_separable(channels: int) -> _Main:
    return _Main(
        depth_conv=_conv(channels, channels, 3, groups=channels), point_conv=_conv(channels, channels, 1, act=False)
    )


def _inverted(inputs: int, outputs: int, *, stride: int = 1, norm: bool = True) -> _Main:
    """Widen, convolve each channel, narrow; without `norm`, the first two have a bias in the place of a BatchNorm."""
    inner = _EXPANSION * inputs
    return _Main(
        inverted_conv=_conv(inputs, inner, 1, norm=norm),
        depth_conv=_conv(inner, inner, 3, stride=stride, groups=inner, norm=norm),
        point_conv=_conv(inner, outputs, 1, act=False),
    )


class _Residual(nn.Module):
    """Adds its input, without a name of its own in weight files."""

    def __init__(self, block: _Main) -> None:
        super().__init__()
        self.main = block.main

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return x + y


class _LinearAttention(nn.Module):
    """Attention with ReLU in the place of the softmax, so that keys and values are summed over pixels once."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.main = nn.ModuleDict(
            {
                "qkv": nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, wide, 1, bias=False))),
                "aggreg": nn.ModuleList(
                    [
                        nn.Sequential(
                            nn.Conv2d(wide, wide, _KERNEL, padding=_KERNEL // 2, groups=wide, bias=False),
                            nn.Conv2d(wide, wide, 1, groups=wide // _HEAD_DIM, bias=False),
                        )
                    ]
                ),
                "proj": _conv(2 * channels, channels, 1, act=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.main["qkv"](x)
        both = torch.cat([qkv, self.main["aggreg"][0](qkv)], dim=1)  # type: ignore[index]
        # Sums over all pixels, of products, leave half precision's range.
        is_narrow = both.dtype != torch.float32
        with torch.autocast(x.device.type, enabled=False) if is_narrow else nullcontext():
            attended = self._attend(both.float())
        y: Tensor = self.main["proj"](attended.to(both.dtype))
        return x + y

    def _attend(self, qkv: Tensor) -> Tensor:
        """Heads `[B, 16 n, h, w]` of queries, keys and values that lie `[B, (n, q k v, 16), h, w]`."""
        batch, channels, height, width = qkv.shape
        heads = qkv.reshape(batch, channels // (3 * _HEAD_DIM), 3 * _HEAD_DIM, height * width)
        query, key, value = (heads[:, :, start : start + _HEAD_DIM] for start in (0, _HEAD_DIM, 2 * _HEAD_DIM))
        ones = torch.ones_like(value[:, :, :1])  # whose sum is the denominator
        summed = torch.cat([value, ones], dim=2) @ key.relu().transpose(2, 3)  # [B, n, 17, 16]
        out = summed @ query.relu()
        attended = out[:, :, :_HEAD_DIM] / (out[:, :, _HEAD_DIM:] + _EPS)
        return attended.reshape(batch, channels // 3, height, width)


class _AttentionBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.context_module = _LinearAttention(channels)
        self.local_module = _Residual(_inverted(channels, channels, norm=False))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.local_module(self.context_module(x))
        return y


def _listed(*blocks: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(op_list=nn.Sequential(*blocks)))


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_stem = _listed(_conv(3, _STEM, 3, stride=2), _Residual(_depthwise_separable(_STEM)))
        first, second, third, fourth = _WIDTHS
        self.stages = nn.ModuleList(
            [
                _listed(_inverted(_STEM, first, stride=2), _Residual(_inverted(first, first))),
                _listed(_inverted(first, second, stride=2), _Residual(_inverted(second, second))),
                _listed(_inverted(second, third, stride=2, norm=False), _AttentionBlock(third), _AttentionBlock(third)),
                _listed(
                    _inverted(third, fourth, stride=2, norm=False), _AttentionBlock(fourth), _AttentionBlock(fourth)
                ),
            ]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        x, outputs = self.input_stem(image), []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class _Head(nn.Module):
    """Sums the last three stages at stride 8, and labels that."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        _, second, third, fourth = _WIDTHS
        narrow = {"act": False}
        self.input_ops = nn.ModuleList(
            [
                _listed(_conv(fourth, _HEAD, 1, **narrow)),
                _listed(_conv(third, _HEAD, 1, **narrow)),
                _conv(second, _HEAD, 1, **narrow),
            ]
        )
        self.middle = _listed(_Residual(_inverted(_HEAD, _HEAD)))
        inner = _EXPANSION * _HEAD
        classify = nn.Sequential(OrderedDict(conv=nn.Conv2d(inner, classes, 1)))
        self.output_ops = nn.ModuleList([_listed(_conv(_HEAD, inner, 1), classify)])

    def forward(self, mid: Tensor, deep: Tensor, last: Tensor) -> Tensor:
        from_last, from_deep, from_mid = self.input_ops
        size = mid.shape[2:]
        total = from_mid(mid)
        for narrow, x in ((from_deep, deep), (from_last, last)):
            total = total + F.interpolate(narrow(x), size=size, mode="bicubic", align_corners=False)
        logits: Tensor = self.output_ops[0](self.middle(total))
        return logits


class EfficientViT(nn.Module):
    """A semantic network of 0.71 M parameters with logits at stride 8, for inputs whose sides are multiples of 32.

    Its `deep` is the stage at stride 16; its `high` the last one, enlarged from stride 32, which has seen all of the
    image. Its state dict has the names of the authors' files.

    Args:
        classes: Number of classes of the logits.
    """

    low_channels, mid_channels, deep_channels, high_channels = _WIDTHS
    align_corners = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = _Backbone()
        self.head = _Head(classes)

    def forward(self, image: Tensor) -> Taps:
        """Taps of an image `[B, 3, H, W]`: RGB in 0..1, minus the ImageNet mean, over its standard deviation."""
        low, mid, deep, last = self.backbone(image)
        logits = self.head(mid, deep, last)
        high = F.interpolate(last, size=deep.shape[2:], mode="bilinear", align_corners=False)
        return Taps(logits, low, mid, deep, high)
