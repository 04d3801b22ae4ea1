"""Labelled frames with the numbers of their instances: what the localization head learns from."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import cv2
import numpy as np

from errseg_rt.datasets import Sample
from errseg_rt.datasets.pairing import pair_files
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.reading import Reading, read_frame
from errseg_rt.training.sized import InstanceMap


class InstanceFolder:
    """Frames in `images/` and 8- or 16-bit numbers of instances in `instances/`, 0 being none, under the same names.

    Every instance is of one class, and whatever is of none is of class 0.

    Args:
        root: Folder that holds both.
        thing: The class of the instances.
        reading: What is taken of the images.

    Raises:
        DataError: A folder is missing or empty, or its files do not pair.
    """

    def __init__(self, root: Path, thing: int, reading: Reading = Reading()) -> None:  # noqa: B008 - frozen
        for name in ("images", "instances"):
            if not (root / name).is_dir():
                raise DataError(f"{root / name}: no such folder; instances lie in instances/ beside images/")
        pairs = pair_files(root / "images", root / "instances")
        self.root, self.thing, self.reading = root, thing, reading
        self.names: Sequence[str] = list(pairs)
        self._pairs = list(pairs.values())

    def subset(self, indices: Sequence[int]) -> InstanceFolder:
        """The same data with only some of its frames, in the order given."""
        part = copy(self)
        part.names = [self.names[index] for index in indices]
        part._pairs = [self._pairs[index] for index in indices]
        return part

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Frame `uint8 [H, W, 3]` in BGR and labels `uint8 [H, W]`: the things' class, and 0.

        Raises:
            DataError: A file cannot be read.
        """
        try:
            frame = read_frame(self._pairs[index][0], self.reading)
        except FrameError as error:
            raise DataError(str(error)) from error
        return frame, np.where(self.instances(index) > 0, self.thing, 0).astype(np.uint8)

    def instances(self, index: int) -> InstanceMap:
        """Number of the instance of each pixel, `int32 [H, W]`, 0 where there is none.

        Raises:
            DataError: The file cannot be read, or is no grey image.
        """
        path = self._pairs[index][1]
        numbers = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if numbers is None or numbers.ndim != 2:
            raise DataError(f"{path}: wanted a PNG of 8- or 16-bit numbers of instances")
        return numbers.astype(np.int32)
