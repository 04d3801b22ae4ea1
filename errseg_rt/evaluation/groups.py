"""Ordered bins, gathered into groups of equal mass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def equal_mass(mass: npt.NDArray[np.floating], groups: int) -> npt.NDArray[np.int64]:
    """The group of each of some ordered bins, so that groups weigh nearly the same.

    A bin goes where its middle lies on the axis of summed mass; one that outweighs a group leaves others empty.

    Args:
        mass: Of the bins, `[N]`, not negative, with a positive sum.
        groups: Number of groups.

    Returns:
        `int64 [N]` in 0..groups-1, never decreasing.
    """
    after = np.cumsum(mass, dtype=np.float64)
    middle = (after - mass / 2) / after[-1]
    group: npt.NDArray[np.int64] = np.minimum(middle * groups, groups - 1).astype(np.int64)
    return group
