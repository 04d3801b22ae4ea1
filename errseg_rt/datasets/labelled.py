"""Opening labelled frames for a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets import FolderData, LabelledFrames, open_dataset


def open_labelled(
    root: Path, classes: ClassSet, split: str | None = None, void: Sequence[int] | None = None
) -> LabelledFrames:
    """Open a data set with the classes of a bundle.

    Args:
        root: Folder of the data set.
        classes: The bundle's classes.
        split: Part of the data set; None: its own choice.
        void: Label ids that mean "no class" beside 255; None: in a plain folder the one after the last class, as
            CamVid has it; other layouts have ids of their own.

    Raises:
        DataError: It is no data set, or does not fit the classes.
    """
    data = open_dataset(root, classes, split=split, void=void or ())
    if void is None and isinstance(data, FolderData) and len(classes) < IGNORE:
        return open_dataset(root, classes, split=split, void=(len(classes),))
    return data
