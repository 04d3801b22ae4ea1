"""Where the kernels for GPUs run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Launch kernels on the GPU that holds a tensor; in Triton's interpreter, which has none, on its arrays.

    Raises:
        ValueError: The tensor lies on no NVIDIA GPU.
    """
    if tensor.is_cuda:
        return torch.cuda.device(tensor.device)
    if tensor.device.type == "cpu" and triton.knobs.runtime.interpret:
        return nullcontext()
    raise ValueError(f"tensors must lie on an NVIDIA GPU, got {tensor.device}; on the CPU, give NumPy arrays")


def capability(tensor: torch.Tensor) -> tuple[int, int]:
    """Compute capability of the GPU that holds a tensor, say (9, 0); none, (0, 0), in the interpreter."""
    return torch.cuda.get_device_capability(tensor.device) if tensor.is_cuda else (0, 0)
