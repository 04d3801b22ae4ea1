"""Labelled frames on disk (plain folders, and known layouts), and scores against them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    from errseg_rt.datasets.ade20k import ADE20KData
    from errseg_rt.datasets.cityscapes import CityscapesData
    from errseg_rt.datasets.coco_panoptic import CocoPanopticData
    from errseg_rt.datasets.folder import FolderData
    from errseg_rt.datasets.frames import InstanceFrames, LabelledFiles, LabelledFrames, Sample
    from errseg_rt.datasets.instance_folder import InstanceFolderData
    from errseg_rt.datasets.instances import TrueInstances
    from errseg_rt.datasets.label_map import LabelMap
    from errseg_rt.datasets.layouts import open_dataset, open_labelled
    from errseg_rt.datasets.output_ids import OutputIds
    from errseg_rt.datasets.sbd import SbdData
    from errseg_rt.datasets.scores import ConfusionMatrix
    from errseg_rt.datasets.truth import truth_on_grid
    from errseg_rt.datasets.voc import VocData

_HOMES = {
    "ade20k": ("ADE20KData",),
    "cityscapes": ("CityscapesData",),
    "coco_panoptic": ("CocoPanopticData",),
    "folder": ("FolderData",),
    "frames": ("InstanceFrames", "LabelledFiles", "LabelledFrames", "Sample"),
    "instance_folder": ("InstanceFolderData",),
    "instances": ("TrueInstances",),
    "label_map": ("LabelMap",),
    "layouts": ("open_dataset", "open_labelled"),
    "output_ids": ("OutputIds",),
    "sbd": ("SbdData",),
    "scores": ("ConfusionMatrix",),
    "truth": ("truth_on_grid",),
    "voc": ("VocData",),
}

__all__ = [
    "ADE20KData",
    "CityscapesData",
    "CocoPanopticData",
    "ConfusionMatrix",
    "FolderData",
    "InstanceFolderData",
    "InstanceFrames",
    "LabelMap",
    "LabelledFiles",
    "LabelledFrames",
    "OutputIds",
    "Sample",
    "SbdData",
    "TrueInstances",
    "VocData",
    "open_dataset",
    "open_labelled",
    "truth_on_grid",
]

__getattr__ = lazy(__name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names})
