"""Memory that shows what a kernel does not write."""

from __future__ import annotations

from typing import Any

import torch

from errseg_rt.kernels.torch_launcher import TorchLauncher
from tests.kernels.quick_interpreter import hasten


def poison_memory(monkeypatch: Any) -> None:
    """Fill what kernels are given to write with NaN, or with numbers that none of them writes."""
    hasten(monkeypatch)
    empty = TorchLauncher.empty

    def poisoned(launcher: TorchLauncher, shape: Any, dtype: str) -> torch.Tensor:
        array = empty(launcher, shape, dtype)
        return array.fill_(torch.nan if array.is_floating_point() else -77 if array.dtype.is_signed else 255)

    monkeypatch.setattr(TorchLauncher, "empty", poisoned)
