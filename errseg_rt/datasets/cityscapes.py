"""Cityscapes (Cordts et al. 2016) as it is handed out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.instances import Meaning, TrueInstances
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.pairing import check_split, pair_files
from errseg_rt.errors import DataError
from errseg_rt.frames.reading import InstanceIds
from errseg_rt.frames.runs import ids_in

_LABELS, _INSTANCES = "_gtFine_labelIds.png", "_gtFine_instanceIds.png"
_FIRST = 1000  # an instance is its label id times this, and a number; below it lie label ids
_THINGS = frozenset((24, 25, 26, 27, 28, 29, 30, 31, 32, 33))  # label ids that have instances, as the authors' scripts


class CityscapesData(LabelledFiles):
    """Frames of Cityscapes with the 19 classes that count; all other label ids become `IGNORE`.

    Images are `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, labels
    `gtFine/<split>/<city>/*_gtFine_labelIds.png`; a frame's name is `<city>/<city>_<sequence>_<frame>`. Instances are
    16-bit `*_gtFine_instanceIds.png` beside these: 1000 times the label id, and a number; a label id of a class that
    has instances is a group of them. What has no class that counts is void.

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
        pairs = pair_files(root / "leftImg8bit" / split, root / "gtFine" / split, ("_leftImg8bit.png",), (_LABELS,))
        super().__init__(pairs, label_map or LabelMap.cityscapes())
        files = {name: label.with_name(label.name[: -len(_LABELS)] + _INSTANCES) for name, (_, label) in pairs.items()}
        if any(path.exists() for path in files.values()):
            self.instance_files = files

    def _meant(self, ids: InstanceIds, labels: npt.NDArray[np.uint8], index: int) -> TrueInstances:
        meanings: dict[int, Meaning] = {}
        for instance in ids_in(ids):
            is_one = instance >= _FIRST
            label = instance // _FIRST if is_one else instance
            if label not in self.label_map.ids:
                path = self.instance_files[self.names[index]]
                raise DataError(f"{path}: instance id {instance} has no class; {self.label_map.known}")
            meaning = self.label_map.ids[label]
            if is_one or label in _THINGS or meaning == IGNORE:
                meanings[instance] = Meaning(meaning, crowd=not is_one)
        return TrueInstances.of(ids, meanings)
