"""Scores of frames as they get done, in this run or an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.datasets.scores import ConfusionMatrix

Labels = npt.NDArray[np.uint8]


class Tally:
    """Counts of pixels by true class and label, over the frames that have a truth.

    Args:
        classes: What the ids mean.

    Attributes:
        semantic: Of the labels of the semantic branch.
    """

    def __init__(self, classes: ClassSet) -> None:
        self._classes = classes
        self.semantic, self._fused = ConfusionMatrix(len(classes)), ConfusionMatrix(len(classes))
        self._frames, self._pixels = 0, 0

    def counted(self, truth: Labels, semantic: Labels, fused: Labels) -> dict[str, str]:
        """What an entry of a frame keeps of its scores, for `add`: `true>label:pixels` of each pair that occurs."""
        kept = {}
        for name, labels in (("semantic", semantic), ("fused", fused)):
            matrix = ConfusionMatrix(len(self._classes))
            matrix.add(truth, labels)
            rows, cols = np.nonzero(matrix.counts)
            kept[name] = " ".join(
                f"{true}>{label}:{matrix.counts[true, label]}" for true, label in zip(rows, cols, strict=True)
            )
        return kept

    def add(self, entry: Mapping[str, Any]) -> None:
        """Count a frame by its entry.

        Raises:
            ValueError: What the entry keeps is not of these classes.
            LookupError, TypeError, AttributeError, ArithmeticError: Likewise.
        """
        if "confusion" not in entry:
            return
        semantic, fused = (self._counts(entry["confusion"][name]) for name in ("semantic", "fused"))
        height, width = entry["size"]
        if not 0 <= semantic.sum() == fused.sum() <= height * width > 0:
            raise ValueError(f"counts of {semantic.sum()} and {fused.sum()} of {height}x{width} pixels")
        self.semantic.counts += semantic
        self._fused.counts += fused
        self._frames += 1
        self._pixels += height * width

    def summary(self, frames: int) -> dict[str, Any]:
        """Scores, and of how many of all `frames` they are; None for both where no frame has a truth."""
        if not self._frames:
            return {"scored": None, "scores": None}
        valid = int(self._fused.counts.sum())
        scored = {"frames": self._frames, "of": frames, "valid_pixels": valid / self._pixels}
        scores = {
            "semantic": self.semantic.to_dict(self._classes),
            "fused": self._fused.to_dict(self._classes),
        }
        return {"scored": scored, "scores": scores if valid else None}

    def _counts(self, text: str) -> npt.NDArray[np.int64]:
        counts = np.zeros_like(self._fused.counts)
        for part in text.split():
            pair, _, pixels = part.partition(":")
            true, _, label = pair.partition(">")
            counts[int(true), int(label)] = int(pixels)
            if min(int(true), int(label), int(pixels)) < 0:
                raise ValueError(f"{part} counts nothing")
        return counts
