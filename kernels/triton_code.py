"""A launch in Triton's terms."""

from __future__ import annotations

import importlib
from typing import Any

import triton.language as tl

from errseg_rt.kernels.launch import Launch


def triton_kernel(name: str) -> Any:
    """The kernel that a `Launch` names."""
    folder, _, function = name.partition(".")
    return getattr(importlib.import_module(f"errseg_rt.kernels.{folder}.triton_kernels"), function)


def triton_constants(launch: Launch) -> dict[str, Any]:
    """Its constants, types among them."""
    return {name: getattr(tl, value) if isinstance(value, str) else value for name, value in launch.constants.items()}
