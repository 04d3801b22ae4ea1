"""Labelled frames in files: what they are, and reading them with every fault named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.reading import Reading, read_pair

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
    """Frames in image files, and labels in PNG files of 8-bit ids, of a palette, or of colours that a label map knows.

    Args:
        pairs: Image and label file of each frame, by its name.
        label_map: What label ids mean.
        reading: What is taken of the files.

    Attributes:
        names: Name of each frame.
        pairs: Image and label file of each.
        label_map: What label ids mean.
        reading: As given.
    """

    def __init__(
        self,
        pairs: Mapping[str, tuple[Path, Path]],
        label_map: LabelMap,
        reading: Reading = Reading(),  # noqa: B008 - frozen
    ) -> None:
        self.names: Sequence[str] = list(pairs)
        self.pairs: Sequence[tuple[Path, Path]] = list(pairs.values())
        self.label_map = label_map
        self.reading = reading

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Frame `uint8 [H, W, 3]` in BGR and labels `uint8 [H, W]`, as `read_pair` gives them.

        Raises:
            DataError: A file cannot be read or is damaged, the labels are no class ids or not of the frame's size, or
                an id is neither a class nor void.
        """
        image_path, label_path = self.pairs[index]
        try:
            frame, labels = read_pair(image_path, label_path, self.reading, self.label_map.colors)
        except FrameError as error:
            raise DataError(str(error)) from error
        return frame, self.label_map.apply(labels, label_path)

    def read_as(self, reading: Reading) -> LabelledFiles:
        """The same data, with another rule of what is taken of its files."""
        other = copy(self)
        other.reading = reading
        return other

    def subset(self, indices: Sequence[int]) -> LabelledFiles:
        """The same data with only some of its frames, in the order given."""
        part = copy(self)
        part.names = [self.names[index] for index in indices]
        part.pairs = [self.pairs[index] for index in indices]
        return part
