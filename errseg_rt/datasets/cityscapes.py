"""Cityscapes (Cordts et al. 2016) as it is handed out."""

from __future__ import annotations

from pathlib import Path

from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.pairing import check_split, pair_files


class CityscapesData(LabelledFiles):
    """Frames of Cityscapes with the 19 classes that count; all other label ids become `IGNORE`.

    Images are `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, labels
    `gtFine/<split>/<city>/*_gtFine_labelIds.png`; a frame's name is `<city>/<city>_<sequence>_<frame>`.

    Args:
        root: Folder that holds `leftImg8bit/` and `gtFine/`.
        split: `train`, `val`, or whatever the tree has.
        label_map: What label ids mean, where it is something else.

    Raises:
        DataError: There is no such split, it is empty, or images and labels do not pair.
    """

    def __init__(self, root: Path, split: str = "val", label_map: LabelMap | None = None) -> None:
        for folder in (root / "leftImg8bit", root / "gtFine"):
            check_split(folder, split, "Cityscapes has leftImg8bit/<split>/ and gtFine/<split>/")
        pairs = pair_files(
            root / "leftImg8bit" / split, root / "gtFine" / split, ("_leftImg8bit.png",), ("_gtFine_labelIds.png",)
        )
        super().__init__(pairs, label_map or LabelMap.cityscapes())
