"""Trees laid out as PASCAL VOC (Everingham et al. 2010), which annotation tools export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.instances import TrueInstances
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.pairing import pair_files
from errseg_rt.errors import DataError
from errseg_rt.frames.reading import InstanceIds

LABEL_MAP = "labelmap.txt"
"""Where an export says what its ids and colours mean."""


class VocData(LabelledFiles):
    """Frames in `JPEGImages/`, labels in `SegmentationClass/`; images without a label file are no part of it.

    Instance maps are `SegmentationObject/`, where there is such a folder: 0 nobody's, 255 void, and others of the class
    that most of their pixels have.

    Args:
        root: Folder that holds both, and `ImageSets/Segmentation/<split>.txt`, a name a line, where it has splits.
        split: `train`, `val`, or whatever lists there are; None: every frame with labels.
        classes: The classes that its labels shall have.
        void: Ids, beside 255, that mean "no class"; for ids that are the classes, from 0 on.
        label_map: What label ids mean; None: as the tree's `labelmap.txt` says, else the ids are the classes.

    Raises:
        DataError: A folder is missing or empty, there is no such split, or a frame of it has no image or no labels.
    """

    def __init__(
        self,
        root: Path,
        split: str | None,
        classes: ClassSet,
        void: Sequence[int] | None = (),
        label_map: LabelMap | None = None,
    ) -> None:
        images, labels = root / "JPEGImages", root / "SegmentationClass"
        for folder in (images, labels):
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder; VOC has JPEGImages/ and SegmentationClass/")
        if label_map is None:
            own = root / LABEL_MAP
            label_map = LabelMap.from_file(own, classes) if own.is_file() else LabelMap.of(len(classes), void)
        pairs = pair_files(images, labels, is_partial=True)
        if split is not None:
            wanted = names_of_split(root / "ImageSets" / "Segmentation", split)
            bare = [name for name in wanted if name not in pairs]
            if bare:
                raise DataError(
                    f"{labels}: no .png for {len(bare)} of the {len(wanted)} frames of {split}, as {bare[0]}"
                )
            pairs = {name: pairs[name] for name in wanted}
        super().__init__(pairs, label_map)
        objects = root / "SegmentationObject"
        if objects.is_dir():
            self.instance_files = {name: objects / f"{name}.png" for name in pairs}

    def _meant(self, ids: InstanceIds, labels: npt.NDArray[np.uint8], index: int) -> TrueInstances:
        return TrueInstances.of_labels(ids, labels, void=IGNORE)


def names_of_split(lists: Path, split: str) -> list[str]:
    """The frames that `<split>.txt` in a folder of lists names, each once.

    Raises:
        DataError: It cannot be read, or names none.
    """
    path = lists / f"{split}.txt"
    try:
        names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        found = ", ".join(sorted(file.stem for file in lists.glob("*.txt"))) or "none"
        raise DataError(f"{path}: no split {split!r} that can be read; it has {found}") from error
    if not names:
        raise DataError(f"{path}: the split names no frame")
    return list(dict.fromkeys(names))
