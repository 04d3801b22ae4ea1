"""Global attention upsampling (Pyramid Attention Network, Li et al. 2018; Gong et al. 2021, fig. 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.networks.norms import norm

Kernels = tuple[int, int, int]
KERNELS: Kernels = (3, 3, 3)


def conv_norm(inputs: int, outputs: int, stride: int = 1, *, kernel: int = 3, frozen: bool = False) -> nn.Sequential:
    """Convolution of an odd kernel without bias, then a norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, norm(outputs, frozen=frozen))


class GAU(nn.Module):
    """One decoder block: low-level features, weighed by what the high-level features see of the whole map.

    Args:
        low_channels: Channels of the low-level features L.
        high_channels: Channels of the high-level features H.
        width: Channels of the result.
        align_corners: How H is laid over L when it is enlarged.
        frozen: Whether its norms are frozen.
        kernels: Sides of its convolutions, of that of L and the two of the sum: 3 each, as its authors have them, or 1.
        mid_channels: Channels of features M between L and H, which are added to H; 0: there are none.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        width: int,
        *,
        align_corners: bool,
        frozen: bool = False,
        kernels: Kernels = KERNELS,
        mid_channels: int = 0,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.attend = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high_channels, width, 1), nn.ReLU())
        self.low = conv_norm(low_channels, width, kernel=kernels[0], frozen=frozen)
        self.project = nn.Conv2d(high_channels, width, 1)
        if mid_channels:
            self.project_mid = nn.Conv2d(mid_channels, width, 1)
        first, second = (conv_norm(width, width, kernel=kernel, frozen=frozen) for kernel in kernels[1:])
        self.fuse = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    def gate(self, high: Tensor) -> Tensor:
        """Channel weights `[B, width, 1, 1]` of H `[B, high_channels, h, w]`: the only part that is not local."""
        weights: Tensor = self.attend(high)
        return weights

    def forward(self, low: Tensor, high: Tensor, gate: Tensor | None = None, *, mid: Tensor | None = None) -> Tensor:
        """Decode L `[B, low_channels, h, w]` and H `[B, high_channels, h', w']` into `[B, width, h, w]`.

        Args:
            low: L.
            high: H, on a grid that is as fine as L's or coarser.
            gate: What `gate(high)` gives, where it is already known.
            mid: M, `[B, mid_channels, h'', w'']`, on a grid between the two, where the block is made for it.
        """
        gate = self.gate(high) if gate is None else gate
        up = self.project(high)
        if mid is not None:
            up = self._enlarge(up, mid) + self.project_mid(mid)
        out: Tensor = self.fuse(self._enlarge(up, low) + gate * self.low(low))
        return out

    def _enlarge(self, features: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=self.align_corners)
