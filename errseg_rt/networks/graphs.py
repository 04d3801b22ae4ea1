"""The two graphs that an engine executes: what goes in, what comes out, and which part of the cascade lies between."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.networks.localization import VALUES

Shapes = dict[str, tuple[int | None, ...]]
"""Shapes by name, None where dynamic."""


class FrontGraph(nn.Module):
    """The dense part: semantic branch, error-prediction branch, stages 1 and 2 of the detail branch, boxes."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.cascade = cascade

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits, error logit, low, coarse and gate of an image `[B, 3, H, W]`, and boxes where things have some."""
        return self.cascade.handed_on(image, self.cascade.taps(image))

    def input_shapes(self) -> Shapes:
        """Inputs by name, in order."""
        return {"image": (None, 3, None, None)}

    def output_shapes(self) -> Shapes:
        """Outputs by name, in order."""
        config, low = self.cascade.config, self.cascade.semantic.low_channels
        boxes: Shapes = {"boxes": (None, VALUES * len(config.things), None, None)} if config.things else {}
        return {
            "logits": (None, config.classes, None, None),
            "error_logit": (None, 1, None, None),
            "low": (None, low, None, None),
            "coarse": (None, config.detail_width, None, None),
            "gate": (None, config.detail_width, 1, 1),
            **boxes,
        }


class RefineGraph(nn.Module):
    """Stage 3 of the detail branch, on the whole grid."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.detail = cast(DetailBranch, cascade.detail)
        self._shapes = FrontGraph(cascade).output_shapes()

    def forward(self, logits: Tensor, low: Tensor, coarse: Tensor, gate: Tensor) -> tuple[Tensor]:
        """Detail logits of the front graph's outputs."""
        return (self.detail.refine(logits, low, coarse, gate),)

    def input_shapes(self) -> Shapes:
        """Inputs by name, in order; they are outputs of the front graph."""
        return {name: self._shapes[name] for name in ("logits", "low", "coarse", "gate")}

    def output_shapes(self) -> Shapes:
        """Outputs by name, in order."""
        return {"detail_logits": self._shapes["logits"]}


GRAPHS: dict[str, type[FrontGraph] | type[RefineGraph]] = {"front": FrontGraph, "refine": RefineGraph}
