"""Labels under the ids, and in the files, that benchmark servers and annotation tools take."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.errors import DataError
from errseg_rt.system.atomic import write_atomically


class OutputIds:
    """A label map read backwards: the id of each class.

    Args:
        label_map: What ids mean; of several ids of one class the first counts.
        classes: The classes that are written.

    Attributes:
        text: What files follow from, in short.
        colors: `uint8 [256, 3]`, RGB by id, where files shall have a palette; else None.

    Raises:
        DataError: A class has no id.
    """

    def __init__(self, label_map: LabelMap, classes: ClassSet) -> None:
        self.text = " ".join(f"{label}:{index}" for label, index in label_map.ids.items())
        self._ids = np.full(256, IGNORE, np.uint8)
        for label, index in reversed(label_map.ids.items()):
            self._ids[index] = label
        bare = [name for index, name in enumerate(classes.names) if index not in label_map.classes]
        if bare:
            raise DataError(f"no id for {len(bare)} of the {len(classes)} classes, first {bare[0]}; {label_map.known}")
        self.colors: npt.NDArray[np.uint8] | None = None
        if label_map.colors:
            self.colors = np.zeros((256, 3), np.uint8)
            self.colors[list(label_map.colors)] = list(label_map.colors.values())
            self.text += f" {sorted(label_map.colors.items())}"

    @classmethod
    def open(cls, text: str, classes: ClassSet) -> OutputIds:
        """By the name of a map, or a file; see `LabelMap.open`."""
        return cls(LabelMap.open(text, classes), classes)

    def of(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Ids of class labels, `uint8 [H, W]`."""
        return np.asarray(cv2.LUT(labels, self._ids), np.uint8)

    def save(self, labels: npt.NDArray[np.uint8], path: Path) -> Path:
        """Write class labels as an 8-bit PNG of their ids, whole or not at all.

        Args:
            labels: Class ids, `uint8 [H, W]`.
            path: The file; its folder is made where it is missing.

        Returns:
            The file.

        Raises:
            OSError: It cannot be written.
        """
        from PIL import Image

        picture = Image.fromarray(self.of(labels))
        if self.colors is not None:
            picture.putpalette(self.colors.tobytes())  # the pixels stay, as indices
        with write_atomically(path) as temporary:
            picture.save(temporary, "PNG")
        return path
