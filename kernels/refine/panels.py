"""Weights in the order in which the CPU kernel reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.refine.vector_code import LANES

if TYPE_CHECKING:
    from errseg_rt.kernels.refine.weights import RefineWeights

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Panels:
    """Weights by panels: the output channels of one tile, for which the weights of all inputs follow one another.

    Output channels are padded with zeros to whole vectors.

    Attributes:
        low: float32 [-1], 3x3 or 1x1.
        project: float32 [-1], 1x1.
        first: float32 [-1], 3x3 or 1x1.
        second: float32 [-1], 3x3 or 1x1.
        head: float32 [-1], 1x1.
        low_bias: float32 [N], N being C padded to whole vectors; so are the others.
        project_bias: float32 [N].
        bias1: float32 [N].
        bias2: float32 [N].
        widths: int64, vectors of each panel of C output channels.
        head_widths: int64, of each panel of the head.
    """

    low: Array
    project: Array
    first: Array
    second: Array
    head: Array
    low_bias: Array
    project_bias: Array
    bias1: Array
    bias2: Array
    widths: npt.NDArray[np.int64]
    head_widths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, weights: RefineWeights) -> Panels:
        """Lay out a stage's weights."""
        by_pixel = (weights.project_weight[:, :, None, None], weights.head_weight[:, :, None, None])
        return cls(
            low=pack(weights.low_weight),
            project=pack(by_pixel[0]),
            first=pack(weights.weight1),
            second=pack(weights.weight2),
            head=pack(by_pixel[1]),
            low_bias=_padded(weights.low_bias),
            project_bias=_padded(weights.project_bias),
            bias1=_padded(weights.bias1),
            bias2=_padded(weights.bias2),
            widths=np.array(panel_vectors(weights.channels)),
            head_widths=np.array(panel_vectors(weights.classes)),
        )

    def gated(self, gate: Array) -> tuple[Array, Array]:
        """`low` and `low_bias` with the output channels weighed by a gate `[C]`."""
        lanes = _padded(gate)
        weights, begin, column = np.empty_like(self.low), 0, 0
        depth = len(self.low) // len(lanes)
        for vectors in self.widths:
            panel = slice(begin, begin + depth * vectors * LANES)
            factors = lanes[column : column + vectors * LANES]
            np.multiply(self.low[panel].reshape(depth, -1), factors, out=weights[panel].reshape(depth, -1))
            begin, column = panel.stop, column + vectors * LANES
        return weights, lanes * self.low_bias


def padded_channels(channels: int) -> int:
    """Channels, padded to whole vectors."""
    return -(-channels // LANES) * LANES


def panel_vectors(channels: int) -> list[int]:
    """Vectors of each panel: 3 where they come out even, else some of 2, and 1 only where there is but one."""
    rest, panels = padded_channels(channels) // LANES, []
    while rest:
        panels.append(rest if rest <= 3 else 2 if rest == 4 else 3)
        rest -= panels[-1]
    return panels


def pack(weight: Array) -> Array:  # [outputs, inputs, kh, kw]
    """Lay a convolution's weights out as `[panel][kh][kw][inputs][lane]`, flat."""
    outputs, inputs, height, width = weight.shape
    lanes = np.zeros((height, width, inputs, padded_channels(outputs)), np.float32)
    lanes[..., :outputs] = weight.transpose(2, 3, 1, 0)
    return _by_panel(lanes, panel_vectors(outputs))


def _by_panel(lanes: Array, panels: Sequence[int]) -> Array:
    ends = np.cumsum(panels) * LANES
    return np.concatenate([part.ravel() for part in np.split(lanes, ends[:-1], axis=-1)])


def _padded(bias: Array) -> Array:  # [C]
    padded = np.zeros(padded_channels(len(bias)), np.float32)
    padded[: len(bias)] = bias
    return padded
