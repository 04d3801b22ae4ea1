"""Kernels: one folder per operation, with its definition (`reference.py`) beside the fast versions.

The names below are loaded when first asked for: importing numba takes longer than all the rest of a cheap command. The
function `fuse_labels` shares its name with its folder, so it is taken from there:
`from errseg_rt.kernels.fuse_labels import fuse_labels`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from errseg_rt.kernels.fuse_labels import FusedLabels, Geometry, fuse_labels_reference, upsample, upsample_reference

__all__ = ["FusedLabels", "Geometry", "fuse_labels_reference", "upsample", "upsample_reference"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("errseg_rt.kernels.fuse_labels"), name)
