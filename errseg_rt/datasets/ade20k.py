"""The scene parsing benchmark on ADE20K (Zhou et al. 2017) as it is handed out."""

from __future__ import annotations

from pathlib import Path

from errseg_rt.bundle.classes import ADE20K, IGNORE
from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.pairing import check_split, pair_files

_SPLITS = {"train": "training", "val": "validation"}


class ADE20KData(LabelledFiles):
    """Frames of ADEChallengeData2016: label 0, "other", becomes `IGNORE`, labels 1..150 the classes 0..149.

    Images are `images/<split>/*.jpg`, labels `annotations/<split>/*.png`.

    Args:
        root: Folder that holds `images/` and `annotations/`.
        split: `training` (or `train`) or `validation` (or `val`).

    Raises:
        DataError: There is no such split, it is empty, or images and labels do not pair.
    """

    def __init__(self, root: Path, split: str = "validation") -> None:
        split = _SPLITS.get(split, split)
        for folder in (root / "images", root / "annotations"):
            check_split(folder, split, "ADE20K has images/<split>/ and annotations/<split>/")
        ids = {0: IGNORE, **{index + 1: index for index in range(len(ADE20K))}}
        super().__init__(
            pair_files(root / "images" / split, root / "annotations" / split),
            ids,
            f"label ids of ADE20K are 1..{len(ADE20K)}, and 0 for other",
        )
