"""What instances cost without a network of their own: pieces of the class map, and these cut at their waists.

Both take labels of any method, so that a table compares ways of telling instances apart on the same class map. Their
parameters are to be chosen on training images, as the other methods' are.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.instances import Instances

Labels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]


def connected_components(
    labels: Labels,
    things: Sequence[int],
    class_set: ClassSet,
    *,
    confidence: Map | None = None,
    error_map: Map | None = None,
    least_pixels: int = 1,
) -> Instances:
    """Each piece of a thing's label, neighbours by side or corner, is an instance.

    Args:
        labels: Class ids, `uint8 [H, W]`.
        things: Classes that have instances.
        class_set: What the ids mean.
        confidence: Probability of the label, `float32 [H, W]`: an instance's score is its mean; None: all have 1.
        error_map: Error probability, `float32 [H, W]`; None where there is none.
        least_pixels: Pixels below which a piece is none.
    """
    pieces = [cv2.connectedComponents((labels == thing).astype(np.uint8))[1] for thing in things]
    return _instances(pieces, things, class_set, confidence, error_map, least_pixels)


def watershed(
    labels: Labels,
    things: Sequence[int],
    class_set: ClassSet,
    *,
    confidence: Map | None = None,
    error_map: Map | None = None,
    least_pixels: int = 1,
    sigma: float = 1.0,
    apart: int = 9,
) -> Instances:
    """Each piece is cut along the watershed of the distance to its border, one instance for each summit.

    Args:
        labels: As `connected_components` takes them, as what is not said here.
        things: Likewise.
        class_set: Likewise.
        confidence: Likewise.
        error_map: Likewise.
        least_pixels: Likewise.
        sigma: Of the Gaussian that smooths the distance, in pixels; 0: none.
        apart: Pixels within which only the highest summit counts, at least 1.
    """
    pieces = [_cut((labels == thing).astype(np.uint8), sigma, apart) for thing in things]
    return _instances(pieces, things, class_set, confidence, error_map, least_pixels)


def _cut(mask: Labels, sigma: float, apart: int) -> npt.NDArray[np.int32]:
    """The pieces of a mask, cut at their waists, numbered from 1."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    smooth = cv2.GaussianBlur(distance, (0, 0), sigma) if sigma > 0 else distance
    near = cv2.dilate(smooth, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * apart + 1, 2 * apart + 1)))
    count, summits = cv2.connectedComponents(((smooth >= near) & (mask > 0)).astype(np.uint8))
    flooded = _flooded(-smooth, mask > 0, summits)
    # A low summit within reach of another piece's higher one is none; its piece, then, is one instance.
    _, rest = cv2.connectedComponents(((flooded == 0) & (mask > 0)).astype(np.uint8))
    return np.where(rest > 0, rest + count - 1, flooded).astype(np.int32)


def _flooded(depth: Map, inside: npt.NDArray[np.bool_], markers: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Watershed by flooding from markers (Meyer 1991): the lowest pixel beside what is flooded is flooded next."""
    flooded = np.pad(markers, 1)
    open_to = np.pad(inside, 1) & (flooded == 0)
    level = np.pad(depth, 1)
    width = flooded.shape[1]
    steps = (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1)
    labels, is_open, levels = flooded.reshape(-1).tolist(), open_to.reshape(-1).tolist(), level.reshape(-1).tolist()
    queue = [(levels[place], order, place) for order, place in enumerate(np.flatnonzero(flooded).tolist())]
    heapq.heapify(queue)
    order = len(queue)
    while queue:
        _, _, place = heapq.heappop(queue)
        for step in steps:
            beside = place + step
            if is_open[beside]:
                is_open[beside] = False
                labels[beside] = labels[place]
                order += 1  # of equal ones the first
                heapq.heappush(queue, (levels[beside], order, beside))
    return np.array(labels, np.int32).reshape(flooded.shape)[1:-1, 1:-1]


def _instances(
    pieces: Sequence[npt.NDArray[np.int32]],
    things: Sequence[int],
    class_set: ClassSet,
    confidence: Map | None,
    error_map: Map | None,
    least_pixels: int,
) -> Instances:
    """The pieces of all things as instances, scored by the mean confidence over each."""
    index = np.zeros(pieces[0].shape, np.int32)
    classes: list[int] = []
    for thing, numbered in zip(things, pieces, strict=True):
        index[numbered > 0] = numbered[numbered > 0] + len(classes)
        classes += [thing] * int(numbered.max(initial=0))
    areas = np.bincount(index.reshape(-1), minlength=len(classes) + 1)
    index[areas[index] < least_pixels] = 0
    scores = np.ones(len(classes))
    if confidence is not None:
        sums = np.bincount(index.reshape(-1), confidence.reshape(-1), len(classes) + 1)
        scores = sums[1:] / np.maximum(areas[1:], 1)
    return Instances.of(index, classes, scores, class_set, error_map)
