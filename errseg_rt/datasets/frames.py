"""Labelled frames in files: what they are, and reading them with every fault named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.images import read_image, read_labels

Sample = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
"""A frame `[H, W, 3]` in BGR and its labels `[H, W]`, `IGNORE` where there is no class."""


class LabelledFrames(Protocol):
    """Frames with their labels, by number, and a name for each."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each frame; no two are the same."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class LabelledFiles:
    """Frames in image files and labels in 8-bit, one-channel PNG files.

    Args:
        pairs: Image and label file of each frame, by its name.
        label_map: What label ids mean.

    Attributes:
        names: Name of each frame.
        pairs: Image and label file of each.
        label_map: What label ids mean.
    """

    def __init__(self, pairs: Mapping[str, tuple[Path, Path]], label_map: LabelMap) -> None:
        self.names: Sequence[str] = list(pairs)
        self.pairs: Sequence[tuple[Path, Path]] = list(pairs.values())
        self.label_map = label_map

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Frame `uint8 [H, W, 3]` in BGR, grey ones with three equal channels, and labels `uint8 [H, W]`.

        Raises:
            DataError: A file cannot be read, the labels are no class ids or not of the frame's size, or an id is
                neither a class nor void.
        """
        image_path, label_path = self.pairs[index]
        try:
            frame = _as_bgr(read_image(image_path))
            labels = read_labels(label_path, (frame.shape[0], frame.shape[1]))
        except FrameError as error:
            raise DataError(str(error)) from error
        return frame, self.label_map.apply(labels, label_path)

    def subset(self, indices: Sequence[int]) -> LabelledFiles:
        """The same data with only some of its frames, in the order given."""
        part = copy(self)
        part.names = [self.names[index] for index in indices]
        part.pairs = [self.pairs[index] for index in indices]
        return part


def _as_bgr(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Some data sets hold a few grey pictures among the coloured; alpha says nothing of a class."""
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    return np.ascontiguousarray(image[..., :3])
