"""Argmax over class maps that never lie in memory together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def argmax_of(maps: Iterable[npt.NDArray[np.float32]]) -> npt.NDArray[np.uint8]:
    """The class of the largest value at each pixel.

    Args:
        maps: One `float32 [H, W]` a class, at least one, in the order of the ids.

    Returns:
        `uint8 [H, W]`, the lowest class on ties.
    """
    rest = iter(maps)
    largest = next(rest).copy()
    labels = np.zeros(largest.shape, np.uint8)
    for index, candidate in enumerate(rest, 1):
        labels[candidate > largest] = index
        np.maximum(largest, candidate, out=largest)
    return labels
