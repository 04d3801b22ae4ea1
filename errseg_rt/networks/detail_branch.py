"""The detail branch (Gong et al. 2021, section 3.4): a decoder of three blocks that labels flagged pixels again."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from errseg_rt.networks.gau import GAU, KERNELS, Kernels
from errseg_rt.networks.taps import SemanticNetwork, Taps


class Coarse(NamedTuple):
    """What stage 3 needs of stages 1 and 2."""

    coarse: Tensor  # [B, width, h8, w8], output of stage 2
    gate: Tensor  # [B, width, 1, 1], stage 3's channel weights


class DetailBranch(nn.Module):
    """Stages 1 and 2 hold the global averages and run densely; stage 3, at stride 4, is local once its gate is known.

    Args:
        semantic: The network whose taps it reads.
        width: Channels of every stage.
        residual: Start from the semantic logits (the last layer starts at zero), so that only corrections are learned.
        frozen: Whether its norms are frozen.
        kernels: Sides of the convolutions of stages 1 and 2, and those of stage 3, as `GAU` has them.
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
        self.residual = residual
        block = partial(GAU, width=width, align_corners=semantic.align_corners, frozen=frozen)
        self.stage1 = block(semantic.deep_channels, semantic.high_channels, kernels=kernels[0])
        self.stage2 = block(semantic.mid_channels, width, kernels=kernels[0])
        self.stage3 = block(semantic.low_channels, width, kernels=kernels[1])
        self.head = nn.Conv2d(width, semantic.classes, 1)
        if residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, taps: Taps) -> Tensor:
        """Detail logits `[B, classes, h, w]`, all three stages, of taps whose logits are on the grid."""
        return self.refine(taps.logits, taps.low, *self.decode(taps))

    def decode(self, taps: Taps) -> Coarse:
        """Stages 1 and 2, at strides 16 and 8."""
        coarse = self.stage2(taps.mid, self.stage1(taps.deep, taps.high))
        return Coarse(coarse, self.stage3.gate(coarse))

    def refine(self, logits: Tensor, low: Tensor, coarse: Tensor, gate: Tensor) -> Tensor:
        """Stage 3 at stride 4: detail logits `[B, classes, h, w]`.

        Args:
            logits: Semantic logits on the grid, `[B, classes, h, w]`.
            low: Features at stride 4, `[B, low_channels, h, w]`.
            coarse: Output of stage 2, `[B, width, h8, w8]`.
            gate: Stage 3's channel weights, `[B, width, 1, 1]`.
        """
        learned: Tensor = self.head(self.stage3(low, coarse, gate))
        # Adding to logits or to log P_sb is the same after the softmax, which does not see a constant.
        return logits + learned if self.residual else learned
