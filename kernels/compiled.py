"""How kernels for the CPU are compiled, and shared among threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from errseg_rt.kernels.cache import KernelCache
from errseg_rt.kernels.team import Team

Scalar = TypeVar("Scalar", bound=np.generic)
OPTIONS = {"nogil": True, "error_model": "numpy"}
_PARTS = 4  # for each thread


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba when it is first called, without the GIL.

    What was compiled is kept on disk, where `errseg_rt.kernels.cache` says.
    """
    kernel: Any = njit(**OPTIONS)(function)
    kernel._cache = KernelCache(function)  # as njit(cache=True) does it, with numba's own
    return cast("Callable[..., Any]", kernel)


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function as part of the compiled ones that call it: kept with them, and never called from Python."""
    kernel: Callable[..., Any] = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)(function)
    return kernel


def share(threads: int, count: int, part: Callable[[int, int], object]) -> None:
    """Cut `count` things into parts, and have threads, this one included, call `part(begin, end)` for each.

    Some parts may take longer than others: there are more of them than threads.

    Raises:
        ValueError: `threads` is below 1.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    workers = min(threads, count)
    if workers < 2:
        part(0, count)
        return
    parts = min(_PARTS * workers, count)
    ahead: SimpleQueue[tuple[int, int]] = SimpleQueue()
    for k in range(parts):
        ahead.put((count * k // parts, count * (k + 1) // parts))

    def work() -> None:
        while True:
            try:
                begin, end = ahead.get_nowait()
            except Empty:
                return
            part(begin, end)

    with Team(workers) as team:
        team.run(work)


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
