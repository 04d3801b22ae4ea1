"""Pictures turned as their metadata say."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)

_QUARTERS = {6: 8, 8: 6}  # orientations that do not undo themselves


def turned(picture: npt.NDArray[T], orientation: int) -> npt.NDArray[T]:
    """A stored picture, `[H, W]` or `[H, W, C]`, as it is to be seen; orientations 1..8 are those of EXIF and TIFF."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


def turned_back(picture: npt.NDArray[T], orientation: int) -> npt.NDArray[T]:
    """A picture as it is to be seen, as it is stored."""
    return turned(picture, _QUARTERS.get(orientation, orientation))
