"""A user's network with two outputs: the area that one may drive on, and the lines of lanes.

An ESPNet encoder with attention over positions and over channels; three transposed convolutions for each output.
The names of its modules are those of the published checkpoint, so that its state dict fits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-3  # of every norm


class ConvBnAct(nn.Module):
    """A convolution without bias, a norm and a PReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=EPS)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` to `[N, channels, ...]`."""
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class BnAct(nn.Module):
    """A norm and a PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=EPS)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = self.act(self.bn(x))
        return out


class Conv(nn.Module):
    """A convolution without bias, "same" padded."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` to `[N, channels, ...]`."""
        out: Tensor = self.conv(x)
        return out


class Pyramid(nn.Module):
    """Few channels, looked at by five dilations, whose answers are summed up one after the other."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        few = channels // 5
        self.c1 = Conv(channels_in, few, kernel, stride)
        self.d1 = Conv(few, channels - 4 * few, 3)
        self.d2 = Conv(few, few, 3, dilation=2)
        self.d4 = Conv(few, few, 3, dilation=4)
        self.d8 = Conv(few, few, 3, dilation=8)
        self.d16 = Conv(few, few, 3, dilation=16)

    def pyramid(self, x: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` to `[N, channels, ...]`, before norm and activation."""
        few = self.c1(x)
        sums = [self.d2(few)]
        for dilated in (self.d4, self.d8, self.d16):
            sums.append(sums[-1] + dilated(few))
        return torch.cat([self.d1(few), *sums], dim=1)


class DownSampler(Pyramid):
    """Halves the size."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(channels_in, channels, kernel=3, stride=2)
        self.bn = nn.BatchNorm2d(channels, eps=EPS)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` to `[N, channels, H / 2, W / 2]`."""
        out: Tensor = self.act(self.bn(self.pyramid(x)))
        return out


class DilatedBlock(Pyramid):
    """Keeps size and channels, with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel=1, stride=1)
        self.bn = BnAct(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = self.bn(x + self.pyramid(x))
        return out


class PositionAttention(nn.Module):
    """Every position looks at every other one: memory grows with the square of their number."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // 8, 1)
        self.key_conv = nn.Conv2d(channels, channels // 8, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        query, key, value = (conv(x).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv))
        attention = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # [N, H W, H W]
        out: Tensor = self.gamma * (value @ attention.transpose(1, 2)).view_as(x) + x
        return out


class ChannelAttention(nn.Module):
    """Every channel looks at those that it is least like."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        flat = x.flatten(2)
        energy = flat @ flat.transpose(1, 2)  # [N, C, C]
        attention = torch.softmax(energy.amax(dim=-1, keepdim=True) - energy, dim=-1)
        out: Tensor = self.gamma * (attention @ flat).view_as(x) + x
        return out


class Encoder(nn.Module):
    """An image to 32 channels at stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.halve = nn.AvgPool2d(3, stride=2, padding=1)
        self.level1 = ConvBnAct(3, 16, 3, stride=2)
        self.b1 = ConvBnAct(16 + 3, 16 + 3, 3)
        self.level2_0 = DownSampler(16 + 3, 64)
        self.level2 = nn.Sequential(*(DilatedBlock(64) for _ in range(2)))
        self.b2 = ConvBnAct(128 + 3, 128 + 3, 3)
        self.level3_0 = DownSampler(128 + 3, 128)
        self.level3 = nn.Sequential(*(DilatedBlock(128) for _ in range(3)))
        self.b3 = ConvBnAct(256, 32, 3)
        self.sa = PositionAttention(32)
        self.sc = ChannelAttention()
        self.conv_sa = ConvBnAct(32, 32, 3)
        self.conv_sc = ConvBnAct(32, 32, 3)
        self.classifier = ConvBnAct(32, 32, 1)

    def forward(self, image: Tensor) -> Tensor:
        """`[N, 3, H, W]`, sides multiples of 8, to `[N, 32, H / 8, W / 8]`."""
        half = self.halve(image)
        first = self.b1(torch.cat([self.level1(image), half], dim=1))
        down = self.level2_0(first)
        second = self.b2(torch.cat([self.level2(down), down, self.halve(half)], dim=1))
        down = self.level3_0(second)
        third = self.b3(torch.cat([down, self.level3(down)], dim=1))
        out: Tensor = self.classifier(self.conv_sa(self.sa(third)) + self.conv_sc(self.sc(third)))
        return out


class Up(nn.Module):
    """Doubles the size by a transposed convolution, a norm and a PReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(channels_in, channels, 2, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=EPS)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` to `[N, channels, 2 H, 2 W]`."""
        out: Tensor = self.act(self.bn(self.deconv(x)))
        return out


class TwinLiteNet(nn.Module):
    """One encoder, two outputs of two classes each."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.up_1_1, self.up_2_1, self.classifier_1 = Up(32, 16), Up(16, 8), Up(8, 2)
        self.up_1_2, self.up_2_2, self.classifier_2 = Up(32, 16), Up(16, 8), Up(8, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, 2, H, W]` of drivable area and of lane lines, for an RGB image in 0..1 of 360x640."""
        x = self.encoder(image)
        return self.classifier_1(self.up_2_1(self.up_1_1(x))), self.classifier_2(self.up_2_2(self.up_1_2(x)))


def load(path: str) -> TwinLiteNet:
    """The network of a file that `DataParallel` has saved, ready to infer."""
    network = TwinLiteNet()
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    return network.eval()
