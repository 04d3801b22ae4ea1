"""Labelled frames on disk: plain folders, Cityscapes and ADE20K in their official layouts."""

from errseg_rt.datasets.ade20k import ADE20KData
from errseg_rt.datasets.cityscapes import CityscapesData
from errseg_rt.datasets.folder import FolderData
from errseg_rt.datasets.frames import LabelledFiles, LabelledFrames, Sample
from errseg_rt.datasets.layouts import open_dataset

__all__ = [
    "ADE20KData",
    "CityscapesData",
    "FolderData",
    "LabelledFiles",
    "LabelledFrames",
    "Sample",
    "open_dataset",
]
