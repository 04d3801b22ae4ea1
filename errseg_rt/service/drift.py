"""How much of recent frames is expected to be wrong: what drifts shows there, without a label."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.segmentation import Segmentation

DOUBTFUL = 0.5
"""Calibrated error probability from which on a pixel is doubtful: it is rather wrong than right."""
_RECENT = 500  # frames


class _Frame(NamedTuple):
    error: float | None
    flagged: float
    pixels: npt.NDArray[np.int64]
    doubtful: npt.NDArray[np.int64]


class Drift:
    """Figures of recent frames, from whatever threads they come.

    Args:
        classes: The classes of their labels.
        recent: How many frames count.
    """

    def __init__(self, classes: ClassSet, recent: int = _RECENT) -> None:
        self._classes = classes
        self._frames: deque[_Frame] = deque(maxlen=recent)
        self._changed = threading.Lock()

    def add(self, result: Segmentation) -> None:
        """Count a frame."""
        pixels, doubtful = doubts(result)
        frame = _Frame(result.expected_error, result.flagged_share, pixels, doubtful)
        with self._changed:
            self._frames.append(frame)

    @property
    def frames(self) -> int:
        """How many frames count so far."""
        return len(self._frames)

    @property
    def expected_error(self) -> float | None:
        """Mean calibrated error probability, in 0..1; None where nobody knows it."""
        with self._changed:
            known = [frame.error for frame in self._frames if frame.error is not None]
        return sum(known) / len(known) if known else None

    @property
    def flagged_share(self) -> float | None:
        """Mean share of flagged pixels; None before the first frame."""
        with self._changed:
            known = [frame.flagged for frame in self._frames]
        return sum(known) / len(known) if known else None

    @property
    def doubtful(self) -> dict[str, float | None]:
        """Share of the pixels of each class that are doubtful; None where the class was not seen."""
        with self._changed:
            frames = list(self._frames)
        zero = np.zeros(len(self._classes), np.int64)
        pixels = sum((frame.pixels for frame in frames), zero)
        doubtful = sum((frame.doubtful for frame in frames), zero)
        return shares_of(self._classes, pixels, doubtful)


def doubts(result: Segmentation) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Grid pixels by class, and the doubtful ones among them, `int64 [C]` each; zeros without an error map."""
    count = len(result.classes)
    if result.error_probability is None:
        return np.zeros(count, np.int64), np.zeros(count, np.int64)
    rows, cols = result.geometry.seen()
    labels = cv2.resize(result.labels, (cols, rows), interpolation=cv2.INTER_NEAREST)
    is_doubtful = result.error_probability[:rows, :cols] >= DOUBTFUL
    pixels = np.bincount(labels.ravel(), minlength=count)[:count]
    return pixels, np.bincount(labels[is_doubtful], minlength=count)[:count]


def shares_of(
    classes: ClassSet, pixels: npt.NDArray[np.int64], doubtful: npt.NDArray[np.int64]
) -> dict[str, float | None]:
    """Share of each class's pixels that are doubtful; None where there are none of it."""
    return {
        name: float(part / whole) if whole else None
        for name, whole, part in zip(classes.names, pixels, doubtful, strict=True)
    }
