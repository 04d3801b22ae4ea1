"""Plain folders of labelled frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.pairing import pair_files
from errseg_rt.errors import DataError


class FolderData(LabelledFiles):
    """Frames in `images/` and 8-bit class ids in `labels/`, under the same names.

    Instance maps are `instances/`, where there is such a folder, PNG of 8 or 16 bits: 0 nobody's, and others of the
    class that most of their pixels have.

    Args:
        root: Folder that holds both.
        classes: Number of classes.
        void: Label ids, beside 255, that mean "no class"; None: as in `LabelMap.of`.
        label_map: What label ids mean, in the stead of `classes` and `void`.
        split: The folder within both that holds this part of them; None: all that is in them.

    Raises:
        DataError: A folder is missing or empty, frames and labels do not pair, or a void id is a class or no id.
    """

    def __init__(
        self,
        root: Path,
        classes: int,
        void: Sequence[int] | None = (),
        label_map: LabelMap | None = None,
        split: str | None = None,
    ) -> None:
        images, labels = (root / name / (split or "") for name in ("images", "labels"))
        for folder in (images, labels):
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder; labelled frames lie in images/ and labels/ under one name")
        pairs = pair_files(images, labels)
        super().__init__(pairs, label_map or LabelMap.of(classes, void))
        maps = root / "instances" / (split or "")
        if maps.is_dir():
            known = pair_files(images, maps, is_whole=False)
            self.instance_files = {name: path for name, (_, path) in known.items()}
