"""Fusion: class logits on the grid to one label per pixel of the frame, without class maps of the frame's size."""

import importlib
from typing import TYPE_CHECKING, Any

from errseg_rt.kernels.fuse_labels.geometry import Geometry, Interpolation
from errseg_rt.kernels.fuse_labels.reference import FusedLabels, fuse_labels_reference, upsample_reference

if TYPE_CHECKING:
    from errseg_rt.kernels.fuse_labels.cpu import fuse_labels, upsample

__all__ = [
    "FusedLabels",
    "Geometry",
    "Interpolation",
    "fuse_labels",
    "fuse_labels_reference",
    "upsample",
    "upsample_reference",
]


def __getattr__(name: str) -> Any:
    if name not in ("fuse_labels", "upsample"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("errseg_rt.kernels.fuse_labels.cpu"), name)
