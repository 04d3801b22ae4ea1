"""Threads that share out a kernel's tasks among themselves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic


class Team:
    """Threads that run the same function at the same time; the caller is one of them.

    Args:
        threads: How many, the caller included.
    """

    def __init__(self, threads: int) -> None:
        self._others = threads - 1
        self._pool = ThreadPoolExecutor(self._others) if self._others else None

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown()

    def run(self, function: Callable[[Any], bool]) -> bool:
        """Run `function(counter)` in every thread, the counter being for `claim`; return whether all gave true."""
        counter = np.zeros(1, np.int64)
        others = [self._pool.submit(function, counter) for _ in range(self._others)] if self._pool else []
        mine = function(counter)
        return all([mine, *(other.result() for other in others)])


@intrinsic
def claim(_typing: Any, counter: Any) -> Any:
    """In compiled code, take the number of a task that no other thread of the team takes: 0, 1, 2 and so on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), generate
