"""Launches by Triton, on torch's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import triton

from errseg_rt.kernels.launch import Launch, Wide
from errseg_rt.kernels.triton_code import triton_constants, triton_kernel


class TorchLauncher:
    """A `Launcher` whose arrays are tensors; in Triton's interpreter, which has no GPU, those of the CPU.

    Args:
        device: Where tensors lie.

    Raises:
        ValueError: That is no NVIDIA GPU.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda" and not (device.type == "cpu" and triton.knobs.runtime.interpret):
            raise ValueError(f"tensors must lie on an NVIDIA GPU, got {device}; on the CPU, give NumPy arrays")
        self.device = device

    @property
    def capability(self) -> tuple[int, int]:
        """As `Launcher` says."""
        return torch.cuda.get_device_capability(self.device) if self.device.type == "cuda" else (0, 0)

    def empty(self, shape: Sequence[int], dtype: str) -> torch.Tensor:
        """As `Launcher` says."""
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=self.device)

    def zeros(self, shape: Sequence[int], dtype: str) -> torch.Tensor:
        """As `Launcher` says."""
        return torch.zeros(tuple(shape), dtype=getattr(torch, dtype), device=self.device)

    def launch(self, launch: Launch) -> None:
        """As `Launcher` says."""
        arguments = [each.value if isinstance(each, Wide) else each for each in launch.arguments]
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            triton_kernel(launch.kernel)[launch.grid](
                *arguments, **triton_constants(launch), num_warps=launch.warps, num_stages=launch.stages
            )
