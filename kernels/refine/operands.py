"""Weights of refinement in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.launch import dtype_name
from errseg_rt.kernels.refine.weights import RefineWeights

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DeviceWeights:
    """Stage 3 as the GPU reads it: input channels by output channels, both padded with zeros to multiples of 16.

    Attributes:
        host: The weights it was made from.
        low: [9 * Cl, C], the kernel's taps row by row; [Cl, C] where it is 1x1, and so on.
        project: [Cc, C].
        first: [9 * C, C].
        second: [9 * C, C].
        head: [C, K].
        biases: float32: of low, project, first, second [C], and head [K].
    """

    host: RefineWeights
    low: Any
    project: Any
    first: Any
    second: Any
    head: Any
    biases: tuple[Any, ...]

    @property
    def arrays(self) -> list[Any]:
        """All of them, in this order."""
        return [self.low, self.project, self.first, self.second, self.head, *self.biases]

    @classmethod
    def of(cls, weights: RefineWeights, device: torch.device | str, dtype: torch.dtype) -> DeviceWeights:
        """Bring weights to a GPU, once, as torch's tensors.

        Args:
            weights: The weights.
            device: A GPU.
            dtype: float32, float16 or bfloat16: that of the tensors they will be used with. Biases stay float32.
        """
        import torch

        def bring(array: Array, name: str) -> torch.Tensor:
            return torch.from_numpy(array).to(device, getattr(torch, name))

        return cls.brought(weights, bring, dtype_name(dtype))

    @classmethod
    def brought(cls, weights: RefineWeights, bring: Callable[[Array, str], Any], dtype: str) -> DeviceWeights:
        """Bring weights to a GPU, once.

        Args:
            weights: The weights.
            bring: Makes an array of a dtype on the GPU from one of NumPy.
            dtype: As `of` has it.
        """
        channels, classes = stride_of(weights.channels), stride_of(weights.classes)
        low, first, second = (
            bring(_laid_out(weight, stride_of(weight.shape[1]), channels), dtype)
            for weight in (weights.low_weight, weights.weight1, weights.weight2)
        )
        project, head = (weight[..., None, None] for weight in (weights.project_weight, weights.head_weight))
        biases = (weights.low_bias, weights.project_bias, weights.bias1, weights.bias2, weights.head_bias)
        return cls(
            weights,
            low,
            bring(_laid_out(project, weights.coarse_channels, channels), dtype),
            first,
            second,
            bring(_laid_out(head, channels, classes), dtype),
            tuple(bring(np.pad(bias, (0, stride_of(len(bias)) - len(bias))), "float32") for bias in biases),
        )


def stride_of(channels: int) -> int:
    """Channels, padded so that rows begin at multiples of 16 bytes and more."""
    return -(-channels // 16) * 16


def _laid_out(weight: Array, inputs: int, outputs: int) -> Array:  # [C, Cin, kh, kw]
    """Lay weights out as `[kh * kw * inputs, outputs]`, padded with zeros."""
    taps = weight.transpose(2, 3, 1, 0)
    padded = np.pad(taps, ((0, 0), (0, 0), (0, inputs - weight.shape[1]), (0, outputs - weight.shape[0])))
    return np.ascontiguousarray(padded.reshape(-1, outputs))
