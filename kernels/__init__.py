"""Kernels: one folder per operation, with its definition (`reference.py`) beside `cpu.py` and `launches.py`.

    from errseg_rt.kernels import fuse_labels

The functions take NumPy arrays or CUDA tensors. Each shares its name with its folder: the folder's package is imported
here, which loads nothing heavy, so that the name is bound to the function for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from errseg_rt.kernels.fuse_labels import fuse_labels
from errseg_rt.kernels.instances import instances
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.kernels.refine import refine
from errseg_rt.kernels.select import select
from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    from errseg_rt.kernels.fuse_labels import FusedLabels, fuse_labels_reference, upsample, upsample_reference
    from errseg_rt.kernels.geometry import Geometry
    from errseg_rt.kernels.instances import InstanceMap, InstanceSpec, instances_reference
    from errseg_rt.kernels.preprocess import preprocess_reference
    from errseg_rt.kernels.refine import DeviceWeights, RefineWeights, refine_reference
    from errseg_rt.kernels.select import Layers, Selection, select_reference, supports_reference

_HOMES = {
    "geometry": ("Geometry",),
    "fuse_labels": ("FusedLabels", "fuse_labels_reference", "upsample", "upsample_reference"),
    "instances": ("InstanceMap", "InstanceSpec", "instances_reference"),
    "preprocess": ("preprocess_reference",),
    "refine": ("DeviceWeights", "RefineWeights", "refine_reference"),
    "select": ("Layers", "Selection", "select_reference", "supports_reference"),
}

__all__ = [
    "DeviceWeights",
    "FusedLabels",
    "Geometry",
    "InstanceMap",
    "InstanceSpec",
    "Layers",
    "RefineWeights",
    "Selection",
    "fuse_labels",
    "fuse_labels_reference",
    "instances",
    "instances_reference",
    "preprocess",
    "preprocess_reference",
    "refine",
    "refine_reference",
    "select",
    "select_reference",
    "supports_reference",
    "upsample",
    "upsample_reference",
]

__getattr__ = lazy(__name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names})
