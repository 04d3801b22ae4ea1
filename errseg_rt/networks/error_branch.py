"""The error-prediction branch (Gong et al. 2021, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from errseg_rt.networks.gau import GAU, conv_norm

_CUES = 3  # max, margin and entropy of P_sb
_LEAST = 1e-6  # keeps logarithms finite where P_sb saturates


class ErrorBranch(nn.Module):
    """Says for every grid pixel how likely the semantic branch labelled it wrongly.

    Args:
        classes: Classes of the semantic branch.
        high_channels: Channels of its features after the context module.
        width: Channels of the branch.
        residual: Start from the error logit of the semantic branch's own doubt, logit(1 - max P_sb), and learn what to
            add to it.
        align_corners: Alignment of the grids.
        frozen: Whether its norms are frozen.
    """

    def __init__(
        self,
        classes: int,
        high_channels: int,
        width: int,
        *,
        residual: bool,
        align_corners: bool,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.probabilities = nn.Sequential(conv_norm(classes + _CUES * residual, width, frozen=frozen), nn.ReLU())
        half = conv_norm(3, width // 2, stride=2, frozen=frozen)
        quarter = conv_norm(width // 2, width, stride=2, frozen=frozen)
        self.image = nn.Sequential(half, nn.ReLU(), quarter, nn.ReLU())
        self.gau = GAU(2 * width, high_channels, width, align_corners=align_corners, frozen=frozen)
        self.head = nn.Conv2d(width, 1, 1)
        if residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, logits: Tensor, high: Tensor) -> Tensor:
        """Error logit `[B, 1, h, w]` on the grid.

        Args:
            image: Normalised input, `[B, 3, H, W]`, with `h = ceil(H / 4)` and `w = ceil(W / 4)`.
            logits: Semantic logits on the grid, `[B, classes, h, w]`.
            high: Features after the context module, `[B, high_channels, h16, w16]`.
        """
        if not self.residual:
            return self._learned(image, logits.softmax(dim=1), high)
        best = logits.argmax(dim=1, keepdim=True)
        odds = (logits - logits.amax(dim=1, keepdim=True)).exp()  # of each class against the best
        others = odds.where(torch.arange(logits.shape[1], device=logits.device)[:, None, None] != best, 0)
        # Summed without the best class: 1 - max P_sb would lose its digits where P_sb saturates.
        against = others.sum(dim=1, keepdim=True)
        total = 1 + against
        p_sb, p_best, p_second = odds / total, 1 / total, others.amax(dim=1, keepdim=True) / total
        entropy = -(p_sb * p_sb.clamp_min(_LEAST).log()).sum(dim=1, keepdim=True)
        cues = [p_sb, p_best, p_best - p_second, entropy]
        return against.clamp_min(_LEAST).log() + self._learned(image, torch.cat(cues, dim=1), high)

    def _learned(self, image: Tensor, probabilities: Tensor, high: Tensor) -> Tensor:
        low = torch.cat([self.probabilities(probabilities), self.image(image)], dim=1)
        logit: Tensor = self.head(self.gau(low, high))
        return logit
