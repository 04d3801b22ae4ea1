"""A network of a user's: a torch module that knows nothing of taps, and its ONNX file."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from errseg_rt.networks.taps import Taps

TAPS = {
    "low": "/low/low.2/Relu_output_0",
    "mid": "/mid/mid.2/Relu_output_0",
    "deep": "/deep/deep.2/Relu_output_0",
    "high": "/context/context.1/Relu_output_0",
}
"""What the tensors of its file are called, by tap."""


def layer(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class UserNetwork(nn.Module):
    """An encoder of one convolution a stride, a context layer, and a classifier at stride 16."""

    low_channels, mid_channels, deep_channels, high_channels = 4, 6, 8, 10
    align_corners = True

    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        self.classes = classes
        self.stem, self.low, self.mid, self.deep = layer(3, 4), layer(4, 4), layer(4, 6), layer(6, 8)
        self.context = nn.Sequential(nn.Conv2d(8, 10, 1), nn.ReLU())
        self.head = nn.Conv2d(10, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor | Taps:
        low = self.low(self.stem(image))
        mid = self.mid(low)
        deep = self.deep(mid)
        high = self.context(deep)
        logits = self.head(high)
        return logits if torch.jit.is_tracing() else Taps(logits, low, mid, deep, high)


class PlainUNet(nn.Module):
    """A network for thin things: two levels, its one logit at the size of the input; for one size of input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down, self.bottom = layer(3, 4, 1), layer(4, 6), layer(6, 8)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose2d(6, 4, 2, 2)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.first(image)
        down = self.down(first)
        up = torch.relu(self.up(self.bottom(down)) + down)
        logit: torch.Tensor = self.head(torch.relu(self.out(up) + first))
        return logit


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode, its weights such that classes differ from pixel to pixel."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim > 1 else 0.1))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.add_(1)
    return network.eval()


def write(network: nn.Module, path: Path, size: tuple[int, int] = (65, 97), *, fixed: bool = False) -> Path:
    """Export a network as its user would; gives the path."""
    sizes = {2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, *size),),
            str(path),
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_axes=None if fixed else {"pixels": sizes, "scores": sizes},
            opset_version=13,
            dynamo=False,
        )
    return path
