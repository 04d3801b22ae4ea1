"""Class sets: names and colours in the order of their ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.ade20k_classes import NAMES_AND_COLORS

IGNORE = 255
"""Label id that no loss and no score counts (void, unlabelled)."""


@dataclass(frozen=True)
class ClassSet:
    """The classes of a label map; a class id is an index into both tuples.

    Attributes:
        names: One name per class.
        colors: One RGB colour per class, components in 0..255.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        """Raises ValueError unless there are 2 to 255 classes, a colour for each, and components in 0..255."""
        if not all(isinstance(name, str) for name in self.names):
            raise ValueError(f"class names are texts, got {self.names}")
        if not 2 <= len(self.names) <= 255:
            raise ValueError(f"a class set has 2 to 255 classes, got {len(self.names)}")
        if len(self.names) != len(self.colors):
            raise ValueError(f"{len(self.names)} class names but {len(self.colors)} colours")
        if any(len(color) != 3 or not all(0 <= part <= 255 for part in color) for color in self.colors):
            raise ValueError(f"colours are three numbers in 0..255 each, got {self.colors}")

    def __len__(self) -> int:
        return len(self.names)

    def palette_bgr(self) -> npt.NDArray[np.uint8]:
        """Colour of every possible label, `uint8 [256, 3]` in BGR; ids without a class are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.colors)] = np.asarray(self.colors, np.uint8)[:, ::-1]
        return palette


CAMVID = ClassSet(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip
"""The 11 classes of CamVid in the customary order, with its customary colours."""

CITYSCAPES = ClassSet(
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    colors=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
        (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip
"""The 19 classes of Cityscapes that count, in the order of their training ids, with their official colours."""

ADE20K = ClassSet(
    names=tuple(name for name, _ in NAMES_AND_COLORS), colors=tuple(color for _, color in NAMES_AND_COLORS)
)
"""The 150 classes of the scene parsing benchmark on ADE20K; class 0 is its label 1."""

CLASS_SETS: Mapping[str, ClassSet] = MappingProxyType({"camvid": CAMVID, "cityscapes": CITYSCAPES, "ade20k": ADE20K})
"""Class sets by the names under which recipes and the command line know them."""
