"""How kernels for the CPU are compiled, and shared among threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

Scalar = TypeVar("Scalar", bound=np.generic)
OPTIONS = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba when it is first called, without the GIL.

    What was compiled is kept on disk: beside the source, or else in the user's cache folder or `NUMBA_CACHE_DIR`. Where
    none of these can be written, every process compiles for itself.
    """
    try:
        kernel: Callable[..., Any] = njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # numba found no place for its cache
        kernel = njit(**OPTIONS)(function)
    return kernel


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function as part of the compiled ones that call it: kept with them, and never called from Python."""
    kernel: Callable[..., Any] = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)(function)
    return kernel


def share(threads: int, count: int, part: Callable[[int, int], object]) -> None:
    """Cut `count` things into a part for each thread, and call `part(begin, end)` for each.

    Raises:
        ValueError: `threads` is below 1.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    shares = max(1, min(threads, count))
    edges = [count * k // shares for k in range(shares + 1)]
    if shares == 1:
        part(0, count)
        return
    with ThreadPoolExecutor(shares - 1) as pool:
        others = [pool.submit(part, *edge) for edge in pairwise(edges[1:])]
        part(edges[0], edges[1])
        for other in others:
            other.result()


def writable(array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """The same array, for reading: a read-only one would have numba compile a kernel once more."""
    if array.flags.writeable:
        return array
    return np.asarray(_Memory({**array.__array_interface__, "data": (array.ctypes.data, False)}, array))


@dataclass(frozen=True)
class _Memory:
    """Memory of an array, with that array kept alive."""

    __array_interface__: dict[str, Any]
    owner: npt.NDArray[Any]
