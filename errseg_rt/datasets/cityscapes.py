"""Cityscapes (Cordts et al. 2016) as it is handed out."""

from __future__ import annotations

from pathlib import Path

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.pairing import check_split, pair_files

_LABEL_IDS = 34  # label ids are 0..33; what they call -1 is never drawn
# The label ids that count, in the order of the training ids 0..18.
_COUNTED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


class CityscapesData(LabelledFiles):
    """Frames of Cityscapes with the 19 classes that count; all other label ids become `IGNORE`.

    Images are `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, labels
    `gtFine/<split>/<city>/*_gtFine_labelIds.png`; a frame's name is `<city>/<city>_<sequence>_<frame>`.

    Args:
        root: Folder that holds `leftImg8bit/` and `gtFine/`.
        split: `train`, `val`, or whatever the tree has.

    Raises:
        DataError: There is no such split, it is empty, or images and labels do not pair.
    """

    def __init__(self, root: Path, split: str = "val") -> None:
        for folder in (root / "leftImg8bit", root / "gtFine"):
            check_split(folder, split, "Cityscapes has leftImg8bit/<split>/ and gtFine/<split>/")
        pairs = pair_files(
            root / "leftImg8bit" / split, root / "gtFine" / split, ("_leftImg8bit.png",), ("_gtFine_labelIds.png",)
        )
        ids = {**dict.fromkeys(range(_LABEL_IDS), IGNORE), **{label: index for index, label in enumerate(_COUNTED)}}
        super().__init__(pairs, ids, f"label ids of Cityscapes are 0..{_LABEL_IDS - 1}")
