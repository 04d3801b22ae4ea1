"""The error-prediction branch (Gong et al. 2021, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from errseg_rt.bundle.contract import GRID_STRIDE
from errseg_rt.networks.gau import GAU, KERNELS, Kernels, conv_norm
from errseg_rt.networks.taps import SemanticNetwork, Taps

FEATURES = ("image", "low")
"""What the branch sees beside P_sb: convolutions of the image, as the paper has it, or the semantic network's `low`."""
IMAGE_STRIDES = {4: (2, 2), 2: (2, 1), 1: (1, 1)}
"""Strides of the two convolutions of the image, for each stride that a grid may have."""
CONTEXTS = ("high", "mid")
"""What it sees around: the semantic network's `high`, as the paper has it, or its `mid`, too."""
_LEAST_ODDS = 1e-5  # keeps logarithms finite where P_sb saturates


class ErrorBranch(nn.Module):
    """Says for every grid pixel how likely the semantic branch labelled it wrongly.

    With `residual`, which is ours, it learns what to add to the semantic logits, class by class, and P_ep starts from
    the probability that these leave to all classes but the semantic label. Which class a pixel has instead teaches it
    more than whether it is wrong, and the branch starts equal to 1 - max P_sb.

    Args:
        semantic: The network whose taps it reads.
        width: Channels of the branch.
        features: One of `FEATURES`. `"low"` is ours: the semantic network has computed it already, at stride 4.
        grid_stride: A key of `IMAGE_STRIDES`.
        residual: Correct the semantic logits; else one logit is learned from nothing, as the paper has it.
        frozen: Whether its norms are frozen.
        kernels: Sides of its decoder block's convolutions, as `GAU` has them.
        context: One of `CONTEXTS`.
    """

    def __init__(
        self,
        semantic: SemanticNetwork,
        width: int,
        *,
        features: str,
        residual: bool,
        frozen: bool = False,
        grid_stride: int = GRID_STRIDE,
        kernels: Kernels = KERNELS,
        context: str = "high",
    ) -> None:
        super().__init__()
        self.features, self.context, self.residual = features, context, residual
        if features == "image":
            self.probabilities = nn.Sequential(conv_norm(semantic.classes, width, frozen=frozen), nn.ReLU())
            strides = IMAGE_STRIDES[grid_stride]
            first = conv_norm(3, width // 2, stride=strides[0], frozen=frozen)
            second = conv_norm(width // 2, width, stride=strides[1], frozen=frozen)
            self.image = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
            channels = 2 * width
        else:
            channels = semantic.classes + 1 + semantic.low_channels
        self.gau = GAU(
            channels,
            semantic.high_channels,
            width,
            align_corners=semantic.align_corners,
            frozen=frozen,
            kernels=kernels,
            mid_channels=semantic.mid_channels if context == "mid" else 0,
        )
        self.head = nn.Conv2d(width, semantic.classes if residual else 1, 1)
        if residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
            self.offset = nn.Parameter(torch.zeros(()))  # what the weights of eq. 2 add to the logit of an error

    def forward(self, image: Tensor, taps: Taps) -> Tensor:
        """Error logit `[B, 1, h, w]` on the grid.

        Args:
            image: Normalised input, `[B, 3, H, W]`, of which the grid has `h = ceil(H / grid_stride)` and `w` likewise.
            taps: Taps of the semantic branch, its logits on the grid.
        """
        learned = self._learned(image, taps)
        return self.judge(taps.logits, taps.logits + learned) if self.residual else learned

    def correct(self, image: Tensor, taps: Taps) -> Tensor:
        """Corrected semantic logits, `[B, classes, h, w]`, with `residual`; arguments as `forward` has them."""
        return taps.logits + self._learned(image, taps)

    def judge(self, logits: Tensor, corrected: Tensor) -> Tensor:
        """Error logit `[B, 1, h, w]` of the label that semantic logits give, by corrected ones, both on the grid."""
        # By index: in half precision, the largest logits tie.
        is_label = torch.arange(logits.shape[1], device=logits.device)[:, None, None] == logits.argmax(1, keepdim=True)
        odds = (corrected - corrected.amax(dim=1, keepdim=True)).exp()
        of_label = odds * is_label
        label = of_label.sum(dim=1, keepdim=True).clamp_min(_LEAST_ODDS)
        # Summed without the label: a difference of sums would lose its digits where P_sb saturates.
        others = (odds - of_label).sum(dim=1, keepdim=True)
        return (others / label).clamp_min(_LEAST_ODDS).log() + self.offset

    def _learned(self, image: Tensor, taps: Taps) -> Tensor:
        # Written out: ONNX Runtime's softmax over channels takes five times as long.
        odds = (taps.logits - taps.logits.amax(dim=1, keepdim=True)).exp()
        total = odds.sum(dim=1, keepdim=True)
        p_sb = odds / total
        if self.features == "image":
            own = [self.probabilities(p_sb), self.image(image)]
        else:
            # The second is max P_sb. Under autocast these are float32, and would widen the features beside them.
            own = [p_sb.to(taps.low.dtype), total.reciprocal().to(taps.low.dtype), taps.low]
        mid = taps.mid if self.context == "mid" else None
        learned: Tensor = self.head(self.gau(torch.cat(own, dim=1), taps.high, mid=mid))
        return learned
