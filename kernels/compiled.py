"""How kernels for the CPU are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba when it is first called, without the GIL.

    What was compiled is kept on disk: beside the source, or else in the user's cache folder or `NUMBA_CACHE_DIR`. Where
    none of these can be written, every process compiles for itself.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        kernel: Callable[..., Any] = njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no place for its cache
        kernel = njit(**options)(function)
    return kernel
