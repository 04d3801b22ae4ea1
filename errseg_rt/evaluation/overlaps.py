"""How true and found instances of a frame overlap: all that their scores are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from errseg_rt.datasets.instances import VOID, TrueInstances


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pixels of M true and N found instances.

    Attributes:
        shared: That both hold, `int64 [M, N]`.
        true_areas: Of each true one, `int64 [M]`.
        found_areas: Of each found one, `int64 [N]`.
        void: Of each found one where nobody said what is there, `int64 [N]`.
        true_classes: Class ids, `int64 [M]`.
        crowd: Which true ones are groups whose members are not told apart, `bool [M]`.
        found_classes: Class ids, `int64 [N]`.
    """

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
        rows, cols = len(truth) + 1 - VOID, len(classes) + 1  # from VOID and from 0 on
        pairs = (truth.map.reshape(-1).astype(np.int64) - VOID) * cols + found.reshape(-1)
        counts = np.bincount(pairs, minlength=rows * cols).reshape(rows, cols)
        return cls(
            shared=counts[1 - VOID :, 1:],
            true_areas=counts[1 - VOID :].sum(axis=1),
            found_areas=counts[:, 1:].sum(axis=0),
            void=counts[0, 1:],
            true_classes=truth.classes.astype(np.int64),
            crowd=truth.crowd,
            found_classes=classes.astype(np.int64),
        )

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union, void pixels left out, `float64 [M, N]`; 0 where classes differ, and for groups."""
        union = self.true_areas[:, None] + self.found_areas - self.void - self.shared
        may_match = self._alike() & ~self.crowd[:, None] & (union > 0)
        iou: npt.NDArray[np.float64] = np.divide(self.shared, union, out=np.zeros(self.shared.shape), where=may_match)
        return iou

    def excused(self) -> npt.NDArray[np.float64]:
        """Share of each found instance that is void or in groups of its class, `float64 [N]`, in 0..1."""
        in_groups = (self.shared * (self._alike() & self.crowd[:, None])).sum(axis=0)
        return self._share(self.void + in_groups)

    def in_groups(self) -> npt.NDArray[np.float64]:
        """Share of each found instance that is in each group of its class, and that is void in the last row.

        `float64 [M + 1, N]`, in 0..1; 0 for true instances that are no groups.
        """
        in_groups = self.shared * (self._alike() & self.crowd[:, None])
        return self._share(np.vstack([in_groups, self.void]))

    def truths(self, classes: int) -> npt.NDArray[np.int64]:
        """True instances of each class, groups not counted, `int64 [classes]`."""
        return np.bincount(self.true_classes[~self.crowd], minlength=classes)

    def _alike(self) -> npt.NDArray[np.bool_]:
        alike: npt.NDArray[np.bool_] = self.true_classes[:, None] == self.found_classes
        return alike

    def _share(self, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return pixels / np.maximum(self.found_areas, 1)
