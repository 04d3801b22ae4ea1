"""How true and found instances of a frame overlap: all that their scores are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from errseg_rt.datasets.instances import VOID, TrueInstances
from errseg_rt.frames.runs import runs_of


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pixels of M true and N found instances, and of the P pairs of them that share some.

    Attributes:
        true: The true one of each pair, `int64 [P]`.
        found: The found one, `int64 [P]`.
        shared: Pixels that both hold, `int64 [P]`.
        true_areas: Pixels of each true one, `int64 [M]`.
        found_areas: Of each found one, `int64 [N]`.
        void: Of each found one where nobody said what is there, `int64 [N]`.
        true_classes: Class ids, `int64 [M]`.
        crowd: Which true ones are groups whose members are not told apart, `bool [M]`.
        found_classes: Class ids, `int64 [N]`.
    """

    true: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]
    shared: npt.NDArray[np.int64]
    true_areas: npt.NDArray[np.int64]
    found_areas: npt.NDArray[np.int64]
    void: npt.NDArray[np.int64]
    true_classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    found_classes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, truth: TrueInstances, found: npt.NDArray[np.int32], classes: npt.NDArray[np.int32]) -> Overlaps:
        """Count the pixels of a frame.

        Args:
            truth: Its true instances.
            found: Whose each pixel is said to be, `int32 [H, W]`: 0 nobody's, k the k-th found instance's.
            classes: Class ids of the found ones, `int32 [N]`.

        Raises:
            ValueError: The maps are not of one size.
        """
        if truth.map.shape != found.shape:
            raise ValueError(f"true and found instances differ in size: {truth.map.shape} and {found.shape}")
        whole = len(classes) + 1
        runs = runs_of((truth.map.astype(np.int64) - VOID) * whole + found)
        codes, place = np.unique(runs.ids, return_inverse=True)
        pixels = np.bincount(place, runs.lengths, len(codes)).astype(np.int64)
        rows, cols = np.divmod(codes, whole)
        rows += VOID

        def sums(at: npt.NDArray[np.int64], count: int, of: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
            return np.bincount(at[of] - 1, pixels[of], count).astype(np.int64)

        is_pair = (rows > 0) & (cols > 0)
        return cls(
            true=rows[is_pair] - 1,
            found=cols[is_pair] - 1,
            shared=pixels[is_pair],
            true_areas=sums(rows, len(truth), rows > 0),
            found_areas=sums(cols, len(classes), cols > 0),
            void=sums(cols, len(classes), (rows == VOID) & (cols > 0)),
            true_classes=truth.classes.astype(np.int64),
            crowd=truth.crowd,
            found_classes=classes.astype(np.int64),
        )

    @cached_property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union, void left out, `float64 [P]`; 0 where classes differ, and for groups."""
        union = self.true_areas[self.true] + (self.found_areas - self.void)[self.found] - self.shared
        iou: npt.NDArray[np.float64] = self.shared / union
        iou[~self._alike | self.crowd[self.true]] = 0
        return iou

    def excused(self) -> npt.NDArray[np.float64]:
        """Share of each found instance that is void or in groups of its class, `float64 [N]`, in 0..1."""
        in_groups = np.bincount(self.found, self._grouped, len(self.void))
        return np.asarray((self.void + in_groups) / np.maximum(self.found_areas, 1))

    def largest_excuse(self) -> npt.NDArray[np.float64]:
        """Share of each found instance that is void, or in one group of its class, whichever is more, `float64 [N]`."""
        most = self.void.copy()
        np.maximum.at(most, self.found, self._grouped)
        return np.asarray(most / np.maximum(self.found_areas, 1))

    def truths(self, classes: int) -> npt.NDArray[np.int64]:
        """True instances of each class, groups not counted, `int64 [classes]`."""
        return np.bincount(self.true_classes[~self.crowd], minlength=classes)

    @property
    def _alike(self) -> npt.NDArray[np.bool_]:
        alike: npt.NDArray[np.bool_] = self.true_classes[self.true] == self.found_classes[self.found]
        return alike

    @property
    def _grouped(self) -> npt.NDArray[np.int64]:
        """Pixels of a pair, where the true one is a group of the found one's class, `int64 [P]`."""
        return np.where(self._alike & self.crowd[self.true], self.shared, 0)
