"""Instances as a person is shown them: each in a shade of its own, within a white line."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.instances import Instances

_TURN = 111.2  # of 180 hues, the golden section of them: the hues of neighbouring numbers lie far apart
_SHARE = 0.6  # of an instance's own hue; the rest is the colour of its class
_LINE = 500  # pixels of a frame's shorter side for each pixel of a line's width
_INK = (255, 255, 255)


def shades(instances: Instances) -> npt.NDArray[np.uint8]:
    """A colour for each instance, BGR `uint8 [N, 3]`: mixed of its class's colour and a hue of its own."""
    count = len(instances)
    if not count:
        return np.zeros((0, 3), np.uint8)
    hues = np.full((1, count, 3), 255, np.uint8)
    hues[0, :, 0] = (np.arange(count) * _TURN % 180).astype(np.uint8)
    own = cv2.cvtColor(hues, cv2.COLOR_HSV2BGR)[0]
    of_class = _colors(instances.class_set)[instances.classes]
    return np.asarray(np.rint(_SHARE * own + (1 - _SHARE) * of_class), np.uint8)


def colored(colors: npt.NDArray[np.uint8], instances: Instances) -> npt.NDArray[np.uint8]:
    """A copy of a picture of class colours, BGR `uint8 [H, W, 3]`, where each instance has its own."""
    picture = colors.copy()
    mask = instances.map > 0
    picture[mask] = shades(instances)[instances.map[mask] - 1]
    return picture


def outline(instances: Instances) -> npt.NDArray[np.bool_]:
    """The pixels along the border of each instance, within it, `bool [H, W]`; the frame's edge is no border."""
    index = instances.map
    edge = np.zeros(index.shape, bool)
    for one, other in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ):
        differs = index[one] != index[other]
        edge[one] |= differs
        edge[other] |= differs
    width = max(1, round(min(index.shape) / _LINE))
    if width > 1:
        edge = cv2.dilate(edge.view(np.uint8), np.ones((width, width), np.uint8)).view(bool)
    return np.asarray(edge & (index > 0))


def outlined(picture: npt.NDArray[np.uint8], instances: Instances) -> npt.NDArray[np.uint8]:
    """A copy of a picture with a white line along the border of each instance."""
    drawn = picture.copy()
    drawn[outline(instances)] = _INK
    return drawn


def _colors(classes: ClassSet) -> npt.NDArray[np.float64]:
    """BGR, `[K, 3]`."""
    return np.asarray([color[::-1] for color in classes.colors], np.float64)
