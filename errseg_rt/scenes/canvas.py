"""The picture, its labels and its instances, drawn together so that they cannot disagree."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]
"""BGR, components in 0..255."""

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
"""Ids of `errseg_rt.bundle.classes.CAMVID`."""

_SHIFT = 3
_ONE = 1 << _SHIFT
_LIMIT = 30000.0


class Canvas:
    """Buffers of one frame. Every drawing call writes the same pixels of all of them.

    Attributes:
        color: `uint8 [H, W, 3]`, BGR before haze, light, blur and noise.
        tags: `int32 [H, W]`, label in bits 0..3, depth in metres in bits 4..11, instance in bits 12..27. One buffer
            instead of three because most of a frame's time goes into small polygons.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height = height
        self.width = width
        self.color: NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
        self.tags: NDArray[np.int32] = np.zeros((height, width), np.int32)

    def polygon(
        self, pixels: Sequence[tuple[float, float]], color: Color, label: int, depth: float, instance: int = 0
    ) -> None:
        """Fills a polygon of (u, v) pixels. Its outline counts as inside, so thin shapes stay a pixel wide."""
        if len(pixels) < 3:
            return
        us = [u for u, _ in pixels]
        vs = [v for _, v in pixels]
        left, right, top, bottom = min(us), max(us), min(vs), max(vs)
        if right < 0 or bottom < 0 or left > self.width - 1 or top > self.height - 1:
            return
        if left < -_LIMIT or top < -_LIMIT or right > _LIMIT or bottom > _LIMIT:
            us = [min(max(u, -_LIMIT), _LIMIT) for u in us]
            vs = [min(max(v, -_LIMIT), _LIMIT) for v in vs]
        points = np.array([(round(u * _ONE), round(v * _ONE)) for u, v in zip(us, vs, strict=True)], np.int32)
        cv2.fillPoly(self.color, [points], color, cv2.LINE_8, _SHIFT)
        cv2.fillPoly(self.tags, [points], (tag(label, depth, instance),), cv2.LINE_8, _SHIFT)

    def paint(
        self,
        top: int,
        left: int,
        mask: NDArray[np.bool_],  # [h, w]
        color: NDArray[np.uint8],  # [h, w, 3]
        tags: NDArray[np.int32] | int,  # [w] or a number
    ) -> None:
        """Writes a rectangle of colours and tags where `mask` is true. The rectangle lies within the canvas."""
        area = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
        cv2.copyTo(color, mask.view(np.uint8), self.color[area])
        np.copyto(self.tags[area], np.asarray(tags, np.int32), where=mask)

    def labels(self) -> NDArray[np.uint8]:
        """Class ids `uint8 [H, W]`."""
        return (self.tags & 15).astype(np.uint8)

    def depths(self) -> NDArray[np.uint8]:
        """Depth in whole metres `uint8 [H, W]`; 255 is 255 m or more."""
        return ((self.tags >> 4) & 255).astype(np.uint8)

    def instances(self) -> NDArray[np.uint16]:
        """Instance ids `uint16 [H, W]`."""
        return (self.tags >> 12).astype(np.uint16)


def tag(label: int, depth: float, instance: int = 0) -> int:
    """The number that stands for a label, a depth in metres and an instance in `Canvas.tags`."""
    return label | min(max(int(depth), 0), 255) << 4 | instance << 12


def tag_depths(label: int, depths: NDArray[np.float64]) -> NDArray[np.int32]:
    """`tag` of many depths `[...]`, without instance."""
    return label | np.clip(depths, 0, 255).astype(np.int32) << 4
