"""The scene parsing benchmark on ADE20K (Zhou et al. 2017) as it is handed out."""

from __future__ import annotations

from pathlib import Path

from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.pairing import check_split, pair_files

_LAYOUT = "ADE20K has images/<split>/ and annotations/<split>/; labels of other data lie in labels/ beside images/"
_SPLITS = {"train": "training", "val": "validation"}


class ADE20KData(LabelledFiles):
    """Frames of ADEChallengeData2016: label 0, "other", becomes `IGNORE`, labels 1..150 the classes 0..149.

    Images are `images/<split>/*.jpg`, labels `annotations/<split>/*.png`.

    Args:
        root: Folder that holds `images/` and `annotations/`.
        split: `training` (or `train`) or `validation` (or `val`).
        label_map: What label ids mean, where it is something else.

    Raises:
        DataError: There is no such split, it is empty, or images and labels do not pair.
    """

    def __init__(self, root: Path, split: str = "validation", label_map: LabelMap | None = None) -> None:
        split = _SPLITS.get(split, split)
        for folder in (root / "images", root / "annotations"):
            check_split(folder, split, _LAYOUT)
        pairs = pair_files(root / "images" / split, root / "annotations" / split)
        super().__init__(pairs, label_map or LabelMap.ade20k())
