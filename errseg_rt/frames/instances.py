"""The instances of a frame: which pixels belong to which object, of what class, and how far to trust each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.runs import runs_of


@dataclass(frozen=True, eq=False)
class Instances:
    """N instances of a frame, by falling score; `Instances.of` makes them of an index map.

    Attributes:
        map: Whose each pixel is, `int32 [H, W]`: 0 nobody's, k the k-th instance's. Each has a pixel at least, and may
            be in several pieces.
        classes: Class ids, `int32 [N]`.
        scores: Confidence of the method, `float32 [N]`, falling.
        boxes: Smallest box around each mask, `int32 [N, 4]`: x, y, width, height in pixels (COCO's order).
        areas: Pixels of each mask, `int64 [N]`.
        error_probability: Mean of the error map over each mask, `float32 [N]`, in 0..1; None where there is no map.
        class_set: What the class ids mean.
    """

    map: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.int32]
    areas: npt.NDArray[np.int64]
    error_probability: npt.NDArray[np.float32] | None
    class_set: ClassSet

    @classmethod
    def of(
        cls,
        index: npt.NDArray[np.integer[Any]],
        classes: Sequence[int] | npt.NDArray[np.integer[Any]],
        scores: Sequence[float] | npt.NDArray[np.floating[Any]],
        class_set: ClassSet,
        error_map: npt.NDArray[np.float32] | None = None,
    ) -> Instances:
        """Measure the instances of an index map, drop those without a pixel, and number the rest by falling score.

        Args:
            index: Whose each pixel is, integers `[H, W]`: 0 nobody's, k that of the k-th class and score.
            classes: Class ids, `[M]`.
            scores: Confidence of each, `[M]`; of equal ones the first comes first.
            class_set: What the class ids mean.
            error_map: Error probability at frame size, `float32 [H, W]`; None where there is none.

        Raises:
            ValueError: The map is no map, an id in it has no class, the counts or sizes differ, a class is none of the
                set, or a score is not finite.
        """
        index = np.asarray(index)
        if index.ndim != 2 or not np.issubdtype(index.dtype, np.integer):
            raise ValueError(f"an index map is integers [H, W], got {index.dtype} {index.shape}")
        if error_map is not None and error_map.shape != index.shape:
            raise ValueError(f"error map and index map differ in size: {error_map.shape} and {index.shape}")
        of_class, score = np.asarray(classes, np.int32).reshape(-1), np.asarray(scores, np.float32).reshape(-1)
        count = len(of_class)
        if len(score) != count:
            raise ValueError(f"{count} classes but {len(score)} scores")
        if not np.isfinite(score).all():
            raise ValueError("a score is not finite")
        wrong = of_class[(of_class < 0) | (of_class >= len(class_set))]
        if wrong.size:
            raise ValueError(f"class {wrong[0]} is none of the {len(class_set)} of the set")
        runs = runs_of(index)
        least, most = int(runs.ids.min(initial=0)), int(runs.ids.max(initial=0))
        if least < 0 or most > count:
            raise ValueError(f"id {most if least >= 0 else least} of the index map has no class: there are {count}")
        areas = np.bincount(runs.ids, runs.lengths, count + 1).astype(np.int64)[1:]
        order = np.argsort(-score, kind="stable")
        order = order[areas[order] > 0]
        renumber = np.zeros(count + 1, np.int32)
        renumber[order + 1] = np.arange(1, len(order) + 1)
        error = None
        if error_map is not None:
            sums = np.bincount(runs.ids, runs.sums(error_map), count + 1)[1:]
            error = (sums[order] / areas[order]).astype(np.float32)
        return cls(
            map=renumber[index],
            classes=of_class[order],
            scores=score[order],
            boxes=runs.boxes(count)[order],
            areas=areas[order],
            error_probability=error,
            class_set=class_set,
        )

    @classmethod
    def none(cls, shape: tuple[int, int], class_set: ClassSet, *, has_errors: bool = True) -> Instances:
        """No instance in a frame of `[H, W]`, of a bundle that has an error map or not."""
        error_map = np.zeros(shape, np.float32) if has_errors else None
        return cls.of(np.zeros(shape, np.int32), [], [], class_set, error_map)

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        """Size, and how many there are of which class."""
        height, width = self.map.shape
        counts = np.bincount(self.classes, minlength=len(self.class_set))
        named = ", ".join(f"{counts[each]} {self.class_set.names[each]}" for each in np.flatnonzero(counts))
        return f"Instances({height}x{width}, {named or 'none'})"

    def mask(self, number: int) -> npt.NDArray[np.bool_]:
        """Pixels of the instance at a place of the lists, counted from 0, `bool [H, W]`."""
        if not 0 <= number < len(self):
            raise IndexError(f"there is no instance {number} among {len(self)}")
        mask: npt.NDArray[np.bool_] = self.map == number + 1
        return mask

    def rows(self) -> list[dict[str, Any]]:
        """Each instance for a report: `class`, `score`, `box`, `area`, `error_probability` (None without a map)."""
        errors = [None] * len(self) if self.error_probability is None else self.error_probability.tolist()
        columns = (self.classes.tolist(), self.scores.tolist(), self.boxes.tolist(), self.areas.tolist(), errors)
        return [
            {"class": self.class_set.names[each], "score": score, "box": box, "area": area, "error_probability": error}
            for each, score, box, area, error in zip(*columns, strict=True)
        ]
