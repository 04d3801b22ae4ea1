"""What the cascade needs of a semantic network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Taps(NamedTuple):
    """The five outputs of a semantic network that the branches work on."""

    logits: Tensor  # [B, classes, h, w], any stride
    low: Tensor  # [B, low_channels, h4, w4], stride 4
    mid: Tensor  # [B, mid_channels, h8, w8], stride 8
    deep: Tensor  # [B, deep_channels, h16, w16], stride 16, before the context module
    high: Tensor  # [B, high_channels, h16, w16], stride 16, after the context module


class SemanticNetwork(Protocol):
    """A `torch.nn.Module` that hands on its taps; the channel counts size the branches.

    One whose grid is finer than stride 4 also has `grid_stride`, and its taps lie at strides that are as much finer.
    """

    classes: int
    low_channels: int
    mid_channels: int
    deep_channels: int
    high_channels: int
    align_corners: bool

    def __call__(self, image: Tensor) -> Taps:
        """Taps of a normalised image [B, 3, H, W]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its weights by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Take these weights."""
        ...
