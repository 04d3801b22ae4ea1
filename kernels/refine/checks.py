"""What refinement asks of its operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from errseg_rt.kernels.arrays import check_array
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.kernels.refine.weights import RefineWeights
from errseg_rt.kernels.select.operands import Selection


def check_inputs(
    weights: RefineWeights,
    grid_size: tuple[int, int],
    logits: Any,  # [K, h, w]
    low: Any,  # [Cl, h, w]
    coarse: Any,  # [Cc, h8, w8]
    gate: Any,  # [C]
    *,
    dtypes: Sequence[str] = ("float32",),
    place: str | None = "NumPy",
    is_low_packed: bool = False,
) -> None:
    """Raise a ValueError unless these are what stage 3 takes, of one dtype and C-contiguous.

    Only `low` may be known to lie with its channels last.
    """
    check_array("low", low, dtypes, (weights.low_channels, *grid_size), place=place, contiguous=not is_low_packed)
    dtype = (dtype_of(low),)
    check_array("logits", logits, dtype, (weights.classes, *grid_size), place=place)
    check_array("coarse", coarse, dtype, (weights.coarse_channels, "h8", "w8"), place=place)
    check_array("gate", gate, dtype, (weights.channels,), place=place)
    if 0 in coarse.shape:
        raise ValueError(f"coarse must have pixels, got {list(coarse.shape)}")
    if 0 in low.shape:
        raise ValueError(f"low must have pixels, got {list(low.shape)}")
    if coarse.shape[1] > grid_size[0] or coarse.shape[2] > grid_size[1]:
        raise ValueError(f"coarse must not be finer than the grid, {grid_size}, got {tuple(coarse.shape[1:])}")


def check_selection(selection: Any, place: str | None = "NumPy") -> None:
    """Raise a ValueError unless this looks like a selection; that its supports fit each other is seen in their use."""
    if not isinstance(selection, Selection):
        raise ValueError(f"selection must be what select gives, got {type(selection).__name__}")
    height, width = selection.grid_size
    for name in ("rows", "slots"):
        check_array(name, getattr(selection, name), ("int32",), (3, height * width), place=place)
    check_array("counts", selection.counts, ("int32",), (3,), place=place)
    if place == "NumPy" and not all(0 <= count <= height * width for count in selection.counts.tolist()):
        raise ValueError(f"counts must lie in 0..{height * width}, got {selection.counts.tolist()}")
