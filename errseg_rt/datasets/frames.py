"""Labelled frames in files: what they are, and reading them with every fault named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from errseg_rt.datasets.instances import TrueInstances
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.reading import InstanceIds, Reading, read_instance_ids, read_pair

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


class InstanceFrames(LabelledFrames, Protocol):
    """Labelled frames of which the instances are known, too."""

    def instances(self, index: int, labels: npt.NDArray[np.uint8], /) -> TrueInstances:
        """The instances of a frame, given its labels."""
        ...


class LabelledFiles:
    """Frames in image files, and labels in PNG files of 8-bit ids, of a palette, or of colours that a label map knows.

    There may be instance maps beside.

    Args:
        pairs: Image and label file of each frame, by its name.
        label_map: What label ids mean.
        reading: What is taken of the files.

    Attributes:
        names: Name of each frame.
        pairs: Image and label file of each.
        label_map: What label ids mean.
        reading: As given.
        instance_files: Instance map of each frame, by its name; empty where the data have none. A file may be missing.
    """

    instance_files: Mapping[str, Path] = MappingProxyType({})

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

    @property
    def has_instances(self) -> bool:
        """Whether there are instance maps."""
        return bool(self.instance_files)

    def instances(self, index: int, labels: npt.NDArray[np.uint8]) -> TrueInstances:
        """The instances of a frame.

        Args:
            index: Number of the frame.
            labels: Its labels, as the frame came with them, `uint8 [H, W]`.

        Raises:
            DataError: There is no instance map, it cannot be read or is damaged, is not of the frame's size, or holds
                an id without a class.
        """
        name = self.names[index]
        if name not in self.instance_files:
            raise DataError(f"{self.pairs[index][0]}: no instance map; they lie in instances/ beside images/")
        path = self.instance_files[name]
        height, width = labels.shape
        try:
            ids = self._read_instances(path, (height, width))
        except FrameError as error:
            raise DataError(str(error)) from error
        return self._meant(ids, labels, index)

    def _read_instances(self, path: Path, size: tuple[int, int]) -> InstanceIds:
        return read_instance_ids(path, size, self.reading)

    def _meant(self, ids: InstanceIds, labels: npt.NDArray[np.uint8], index: int) -> TrueInstances:
        """What the ids of a frame's instance map mean: 0 is nobody's, others have the class of most of their pixels."""
        return TrueInstances.of_labels(ids, labels)

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
