"""The definition, which NumPy computes as fast as memory allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def finite_reference(
    branches: Sequence[npt.NDArray[np.floating]], counts: Sequence[int | None]
) -> npt.NDArray[np.int32]:  # [n]
    """1 for each branch in which a value is NaN or infinite, else 0.

    Args:
        branches: Values, of any shape.
        counts: How many rows of each, from the first, are defined; None: all.
    """
    defined = (values if count is None else values[:count] for values, count in zip(branches, counts, strict=True))
    return np.array([not np.isfinite(values).all() for values in defined], np.int32)
