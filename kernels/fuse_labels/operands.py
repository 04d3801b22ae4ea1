"""What fusion takes and gives, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.arrays import check_array, described
from errseg_rt.kernels.geometry import Geometry

Array = TypeVar("Array")


@dataclass(frozen=True)
class FusedLabels(Generic[Array]):
    """One label per pixel of the frame; NumPy arrays, or CUDA tensors where the operands were such.

    Attributes:
        labels: uint8 [H, W].
        confidence: float32 [H, W], the fused probability of the label, or None where it was not asked for.
        error: float32 [H, W], the error map at the frame's size, or None where none was given.
    """

    labels: Array
    confidence: Array | None = None
    error: Array | None = None


def check_operands(
    semantic: Any, detail: Any, flagged: Any, geometry: Geometry, error: Any, floats: Sequence[str]
) -> None:
    """Raise a ValueError unless these are operands of fusion as `fuse_labels` describes them.

    Args:
        semantic: Logits of the semantic branch.
        detail: Logits of the detail branch, as a map or as rows, or None.
        flagged: Where those count, or None.
        geometry: How the frame lies on the grid.
        error: An error map, or None.
        floats: Names of the dtypes that logits and maps may have.
    """
    if not isinstance(geometry, Geometry):
        raise ValueError(f"geometry must be a Geometry, got {type(geometry).__name__}")
    grid = geometry.grid_size
    check_array("semantic", semantic, floats, ("C", *grid))
    classes, place = len(semantic), described("semantic", semantic).place
    if not 2 <= classes <= 255:
        raise ValueError(f"semantic must have 2 to 255 classes, got {classes}")
    if error is not None:
        check_map("error", error, geometry, floats, place)
    if (detail is None) != (flagged is None):
        given, missing = ("flagged", "detail") if detail is None else ("detail", "flagged")
        raise ValueError(f"detail and flagged go together: got {given}, but {missing} is None")
    if detail is None:
        return
    as_rows = described("detail", detail).shape[1:] == (classes,)
    same = (described("semantic", semantic).dtype,)
    check_array("detail", detail, same, ("n", classes) if as_rows else semantic.shape, place=place)
    check_array("flagged", flagged, ("int32",) if as_rows else ("bool",), grid, place=place)


def check_map(name: str, grid_map: Any, geometry: Geometry, floats: Sequence[str], place: str | None = None) -> None:
    """Raise a ValueError unless this is a map on the grid."""
    check_array(name, grid_map, floats, geometry.grid_size, place=place)


def check_values(
    detail: npt.NDArray[Any] | None, flagged: npt.NDArray[Any] | None, error: npt.NDArray[Any] | None
) -> None:
    """Raise a ValueError where an index leaves the rows, or an error is not finite; what only a host can afford."""
    if detail is not None and flagged is not None and flagged.dtype == np.int32:
        least, greatest = int(flagged.min()), int(flagged.max())
        if least < -1 or greatest >= len(detail):
            wrong = least if least < -1 else greatest
            raise ValueError(f"flagged must hold rows of detail, -1 to {len(detail) - 1}, got {wrong}")
    if error is not None and not np.isfinite(error).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(error))[0])
        raise ValueError(f"error must be finite, got {error[at]} at {at}")
