"""Data-dependent upsampling (Tian et al. 2019), the decoder that Gong et al. 2021, table 3 compare with."""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn import functional as F

from errseg_rt.networks.gau import KERNELS, Kernels, conv_norm
from errseg_rt.networks.taps import SemanticNetwork, Taps

_RATIO = 4  # from stride 16 to the grid


class DUpsampling(nn.Module):
    """All features meet at stride 16; one linear map then gives the patch of grid labels under each of its pixels.

    Adapted: the map is learned with the rest, not started from a reconstruction of the labels.

    Args:
        semantic: The network whose taps it reads.
        width: Channels of its hidden layer.
        residual: Start from the semantic logits (the last layer starts at zero).
        frozen: Whether its norm is frozen.
        kernels: As `DetailBranch` has them; the very first is the side of its kernel.
    """

    def __init__(
        self,
        semantic: SemanticNetwork,
        width: int,
        *,
        residual: bool,
        frozen: bool = False,
        kernels: tuple[Kernels, Kernels] = (KERNELS, KERNELS),
    ) -> None:
        super().__init__()
        self.residual, self.align_corners = residual, semantic.align_corners
        channels = semantic.low_channels + semantic.mid_channels + semantic.deep_channels + semantic.high_channels
        self.fuse = nn.Sequential(conv_norm(channels, width, kernel=kernels[0][0], frozen=frozen), nn.ReLU())
        self.head = nn.Conv2d(width, semantic.classes * _RATIO**2, 1)
        if residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, taps: Taps) -> Tensor:
        """Logits `[B, classes, h, w]` of taps whose logits are on the grid."""
        size = (taps.deep.shape[2], taps.deep.shape[3])
        features = [F.adaptive_avg_pool2d(tap, size) for tap in (taps.low, taps.mid)]
        patches = F.pixel_shuffle(self.head(self.fuse(cat([*features, taps.deep, taps.high], dim=1))), _RATIO)
        height, width = taps.logits.shape[2:]
        # With aligned corners the first grid pixel lies on the centre of the first patch, not at its edge; on a grid
        # that is not 4n + 1 the last patch need not reach so far.
        offset = _RATIO // 2 if self.align_corners else 0
        top, left = (min(offset, side - want) for side, want in zip(patches.shape[2:], (height, width), strict=True))
        learned = patches[:, :, top : top + height, left : left + width]
        return taps.logits + learned if self.residual else learned
