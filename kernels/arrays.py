"""What the kernels ask of their operands: NumPy arrays, or torch's tensors; nothing is cast or moved for the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from errseg_rt.kernels.launch import dtype_of


@dataclass(frozen=True)
class Description:
    """An array in words that NumPy and torch share.

    Attributes:
        place: Where it lies: `"NumPy"`, or the device of a tensor, say `"cuda:0"`.
        dtype: Say `"float32"`; with the byte order where that is not the machine's.
        shape: Its shape.
        strides: In elements.
        contiguous: Whether it lies in memory row by row and without gaps.
    """

    place: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    contiguous: bool


def described(name: str, array: Any) -> Description:
    """Describe an array or a tensor.

    Raises:
        ValueError: It is neither.
    """
    library = type(array).__module__.partition(".")[0]
    if library == "numpy" and hasattr(array, "flags"):
        dtype = array.dtype.name if array.dtype.isnative else array.dtype.str
        strides = tuple(step // array.itemsize for step in array.strides)
        return Description("NumPy", dtype, array.shape, strides, array.flags.c_contiguous)
    if library == "torch" and hasattr(array, "stride"):
        dtype = dtype_of(array)
        return Description(str(array.device), dtype, tuple(array.shape), array.stride(), array.is_contiguous())
    raise ValueError(f"{name} must be a NumPy array or a CUDA tensor, got {type(array).__name__}")


def is_tensor(name: str, array: Any) -> bool:
    """Whether this is a tensor, for a kernel on the GPU, and not a NumPy array, for one on the CPU.

    Raises:
        ValueError: It is neither.
    """
    return described(name, array).place != "NumPy"


def check_array(
    name: str,
    array: Any,
    dtypes: Sequence[str],
    shape: Sequence[int | str],
    *,
    place: str | None = None,
    contiguous: bool = True,
) -> None:
    """Raise a ValueError unless an array is as a kernel wants it.

    Args:
        name: What the error calls it.
        array: The array.
        dtypes: Names of the dtypes it may have.
        shape: Its shape; a letter stands for any length.
        place: Where it must lie, as a `Description` has it; None: anywhere.
        contiguous: Whether it must be C-contiguous.
    """
    given = described(name, array)
    fits = len(given.shape) == len(shape) and all(
        isinstance(wanted, str) or wanted == length for wanted, length in zip(shape, given.shape, strict=True)
    )
    if not fits or given.dtype not in dtypes:
        wanted = f"{' or '.join(dtypes)} [{', '.join(map(str, shape))}]"
        raise ValueError(f"{name} must be {wanted}, got {given.dtype} {list(given.shape)}")
    if place is not None and given.place != place:
        raise ValueError(f"{name} must lie where the other operands do ({place}), got {given.place}")
    if contiguous and not given.contiguous:
        raise ValueError(f"{name} must be C-contiguous, got strides {given.strides} at shape {given.shape}; copy it")
