"""Plain folders of frames and instance maps, from which the labels follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.frames import LabelledFiles, Sample
from errseg_rt.datasets.instance_classes import FILE, InstanceClasses
from errseg_rt.datasets.instances import TrueInstances
from errseg_rt.datasets.label_map import LabelMap, class_named
from errseg_rt.datasets.pairing import pair_files
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.reading import InstanceIds, read_with_instance_ids
from errseg_rt.frames.runs import ids_in


class InstanceFolderData(LabelledFiles):
    """Frames in `images/`, and in `instances/`, under the same names, PNG of 8- or 16-bit instance ids, 0 nobody's.

    The label of an instance's pixels is its class; all others are of the class "background", of the only class that is
    no thing, or void. All instances are of one class, unless `classes.csv` beside the two folders says otherwise; see
    `InstanceClasses.from_file`.

    Args:
        root: Folder that holds both.
        classes: The classes.
        things: Those that have instances, where that is known; of two classes it is the second otherwise.
        split: The folder within both that holds this part of them; None: all that is in them.

    Raises:
        DataError: A folder is missing or empty, an instance map has no image, or it is not known of what class the
            instances are.
    """

    def __init__(self, root: Path, classes: ClassSet, things: Sequence[int] = (), split: str | None = None) -> None:
        images, maps = (root / name / (split or "") for name in ("images", "instances"))
        for folder in (images, maps):
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder; frames with instances lie in images/ and instances/")
        pairs = pair_files(images, maps, is_whole=False)
        ids = {index: index for index in [*range(len(classes)), IGNORE]}
        super().__init__(pairs, LabelMap(ids, "labels follow from instances"))
        self.instance_files = {name: path for name, (_, path) in pairs.items()}
        background = class_named("background", classes)
        if not things and len(classes) == 2:
            things = (1,) if background is None else (1 - background,)
        rest = [index for index in range(len(classes)) if index not in things]
        if background is None and len(rest) == 1:
            background = rest[0]
        self._background = IGNORE if background is None else background
        if (root / FILE).is_file():
            self._classes = InstanceClasses.from_file(root / FILE, classes)
        elif len(things) == 1:
            self._classes = InstanceClasses.alike(things[0])
        else:
            raise DataError(
                f"{root}: of which of the {len(classes)} classes the instances are is not said; write {FILE} beside "
                f"images/, for one class of all of them with the two lines name,id,class and ,,{classes.names[-1]}"
            )

    def __getitem__(self, index: int) -> Sample:
        """Frame `uint8 [H, W, 3]` in BGR and labels `uint8 [H, W]`.

        Raises:
            DataError: A file cannot be read or is damaged, the map is not of the frame's size, or an id has no class.
        """
        image_path, path = self.pairs[index]
        try:
            frame, ids = read_with_instance_ids(image_path, path, self.reading)
        except FrameError as error:
            raise DataError(str(error)) from error
        found = self._true(ids, index)
        labels = np.array([self._background, *found.classes, IGNORE], np.uint8)[found.map]  # VOID is -1, the last
        return frame, labels

    def _meant(self, ids: InstanceIds, labels: npt.NDArray[np.uint8], index: int) -> TrueInstances:
        return self._true(ids, index)

    def _true(self, ids: InstanceIds, index: int) -> TrueInstances:
        return TrueInstances.of(ids, self._classes.of(self.names[index], ids_in(ids), self.pairs[index][1]))
