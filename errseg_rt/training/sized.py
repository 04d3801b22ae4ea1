"""Labelled frames whose sizes are known, so that nobody reads a frame to learn how large it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.input_spec import Size
from errseg_rt.datasets import LabelledFiles, LabelledFrames, Sample
from errseg_rt.datasets.instances import VOID

InstanceMap = npt.NDArray[np.int32]
ReadInstances = Callable[[int, npt.NDArray[np.uint8]], InstanceMap]


@dataclass(frozen=True)
class SizedFrames:
    """Labelled frames.

    Attributes:
        names: Name of each.
        sizes: Height and width of each, in pixels.
        read: Frame and labels, by number.
        shares: How likely each is to be drawn, `[frames]`; None: all alike.
        instances: Number of the instance of each pixel, `int32 [H, W]`, 0 where there is none and `VOID` where nobody
            says which, by number of the frame and its labels; None: nothing is known of instances.
    """

    names: Sequence[str]
    sizes: Sequence[Size]
    read: Callable[[int], Sample]
    shares: npt.NDArray[np.float64] | None = None
    instances: ReadInstances | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Frame `uint8 [H, W, 3]` in BGR, and labels `uint8 [H, W]`."""
        return self.read(index)

    def subset(self, indices: Sequence[int]) -> SizedFrames:
        """Some of them, in the order given."""
        instances = self.instances
        return SizedFrames(
            [self.names[index] for index in indices],
            [self.sizes[index] for index in indices],
            lambda index: self.read(indices[index]),
            instances=None if instances is None else lambda index, labels: instances(indices[index], labels),
        )

    def weighed(self, indices: Sequence[int], share: float) -> SizedFrames:
        """The same frames, of which some make up a share of what is drawn, alike among themselves; 0: all alike."""
        some = np.isin(np.arange(len(self)), indices)
        if not share or some.all() or not some.any():
            return replace(self, shares=None)
        return replace(self, shares=np.where(some, share / some.sum(), (1 - share) / (~some).sum()))

    def relabelled(self, table: npt.NDArray[np.uint8]) -> SizedFrames:
        """The same frames with other ids, those of a table `uint8 [256]`."""

        def read(index: int) -> Sample:
            frame, labels = self.read(index)
            return frame, table[labels]

        return replace(self, read=read)

    def followed_by(self, others: LabelledFrames) -> SizedFrames:
        """These, and others after them."""

        def read(index: int) -> Sample:
            return self.read(index) if index < len(self) else others[index - len(self)]

        first, second = instances_of(self), instances_of(others)

        def instances(index: int, labels: npt.NDArray[np.uint8]) -> InstanceMap:
            assert first is not None
            assert second is not None
            return first(index, labels) if index < len(self) else second(index - len(self), labels)

        both = None if first is None or second is None else instances
        return SizedFrames([*self.names, *others.names], [*self.sizes, *sizes_of(others)], read, instances=both)


def sizes_of(frames: LabelledFrames) -> Sequence[Size]:
    """Height and width of each frame, as they are known, or else by reading it."""
    known: Sequence[Size] | None = getattr(frames, "sizes", None)
    if known is not None:
        return known
    shapes = (frames[index][1].shape for index in range(len(frames)))
    return [(shape[0], shape[1]) for shape in shapes]


def shares_of(frames: LabelledFrames) -> npt.NDArray[np.float64] | None:
    """How likely each frame is to be drawn, `[frames]`; None: all alike."""
    return frames.shares if isinstance(frames, SizedFrames) else None


def instances_of(frames: LabelledFrames) -> ReadInstances | None:
    """What gives the numbers of the instances of frames that are learned from; None: nothing is known of them.

    Groups whose members are not told apart are `VOID`.
    """
    if not isinstance(frames, LabelledFiles):
        known: ReadInstances | None = getattr(frames, "instances", None)
        return known
    if not frames.has_instances:
        return None

    def read(index: int, labels: npt.NDArray[np.uint8]) -> InstanceMap:
        true = frames.instances(index, labels)
        numbers = np.arange(len(true) + 2, dtype=np.int32)
        numbers[1:-1][true.crowd] = VOID
        numbers[VOID] = VOID  # the last one
        return numbers[true.map]

    return read
