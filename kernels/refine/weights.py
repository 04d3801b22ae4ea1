"""What stage 3 of a detail branch has learned, as one set of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.select.layers import Layers

if TYPE_CHECKING:
    from errseg_rt.kernels.refine.panels import Panels

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RefineWeights:
    """Stage 3 at stride 4, with norms that are constants and folded into the convolutions.

    On the grid, with C channels, Cl low-level channels, Cc channels of stage 2 and K classes:

        x = up(project(coarse)) + gate * (conv(low) + low_bias)
        y = relu(conv1(x) + bias1)
        z = relu(conv2(y) + bias2)
        logits = head(z) + head_bias (+ semantic logits, where residual)

    Each of the three convolutions is of 3x3 or 1x1. All arrays are float32. They must not be changed afterwards:
    kernels keep their own layouts of them.

    Attributes:
        low_weight: [C, Cl, 3, 3] or [C, Cl, 1, 1].
        low_bias: [C].
        project_weight: [C, Cc], of a 1x1 convolution.
        project_bias: [C].
        weight1: [C, C, 3, 3] or [C, C, 1, 1].
        bias1: [C].
        weight2: Likewise.
        bias2: [C].
        head_weight: [K, C], of a 1x1 convolution.
        head_bias: [K].
        residual: Whether the semantic logits are added.
        align_corners: Whether `up` has the centres of corner pixels coincide (True), or the outer edges (False).

    Raises:
        ValueError: A dtype or a shape other than these, or values that are not finite.
    """

    low_weight: Array
    low_bias: Array
    project_weight: Array
    project_bias: Array
    weight1: Array
    bias1: Array
    weight2: Array
    bias2: Array
    head_weight: Array
    head_bias: Array
    residual: bool
    align_corners: bool

    def __post_init__(self) -> None:
        for name in _NAMES:
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                raise ValueError(f"{name} must be a float32 array, got {getattr(array, 'dtype', type(array).__name__)}")
        if self.low_weight.ndim != 4 or self.project_weight.ndim != 2 or self.head_weight.ndim != 2:
            raise ValueError(
                "low_weight must be [C, Cl, 3, 3], project_weight [C, Cc] and head_weight [K, C], got "
                f"{self.low_weight.shape}, {self.project_weight.shape} and {self.head_weight.shape}"
            )
        width, low, coarse, classes = self.channels, self.low_channels, self.coarse_channels, self.classes
        sides = [[1 if array.shape[-1:] == (1,) else 3] * 2 for array in self._convolutions]
        first, second, third = ((width, inputs, *side) for inputs, side in zip((low, width, width), sides, strict=True))
        shapes = (first, (width,), (width, coarse), (width,), second, (width,), third, (width,))
        for name, shape in zip(_NAMES, (*shapes, (classes, width), (classes,)), strict=True):
            array = getattr(self, name)
            if array.shape != shape or array.size == 0:
                raise ValueError(f"{name} must be {list(shape)} without a zero, got {list(array.shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite; export the bundle again")

    @property
    def channels(self) -> int:
        """C, the width of the stage."""
        return len(self.low_weight)

    @property
    def low_channels(self) -> int:
        """Cl, channels of the low-level features."""
        return self.low_weight.shape[1]

    @property
    def coarse_channels(self) -> int:
        """Cc, channels of stage 2's output."""
        return self.project_weight.shape[1]

    @property
    def classes(self) -> int:
        """K."""
        return len(self.head_weight)

    @property
    def layers(self) -> Layers:
        """What a pixel of F1, F2 and F3 costs, and the kernels."""
        first, second, third = (array.shape[-1] for array in self._convolutions)
        return layers_of(self.channels, self.low_channels, self.classes, (first, second, third))

    @cached_property
    def panels(self) -> Panels:
        """The weights as the CPU kernel reads them; made when first asked for."""
        from errseg_rt.kernels.refine.panels import Panels

        return Panels.of(self)

    @property
    def _convolutions(self) -> tuple[Array, Array, Array]:
        return self.low_weight, self.weight1, self.weight2


def layers_of(channels: int, low_channels: int, classes: int, kernels: tuple[int, int, int]) -> Layers:
    """Layers of a stage with so many channels, whose convolutions have kernels of these sides.

    The projection is on the coarse grid, a hundredth of the stage or a few, and not counted.
    """
    low, first, second = (kernel**2 * channels for kernel in kernels)
    return Layers((low * low_channels, first * channels, second * channels + channels * classes), kernels)


_NAMES = (
    "low_weight", "low_bias", "project_weight", "project_bias", "weight1", "bias1", "weight2", "bias2",
    "head_weight", "head_bias",
)  # fmt: skip
