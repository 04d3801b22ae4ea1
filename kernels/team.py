"""Threads that work on one thing together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from types import TracebackType

Done = SimpleQueue["BaseException | None"]


class _Worker:
    """A thread that runs what it is given, and then waits for more.

    It is a plain thread, as an executor takes no more work once the main thread has ended.
    """

    def __init__(self) -> None:
        self.tasks: SimpleQueue[tuple[Callable[[], object], Done]] = SimpleQueue()
        Thread(target=self._serve, daemon=True).start()  # nobody but a team's caller waits for it

    def _serve(self) -> None:
        while True:
            function, done = self.tasks.get()
            try:
                function()
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)
            del function  # which holds what it worked on, and the next may be long in coming


# To begin a thread takes 0.3 ms, as long as a kernel's share of a small frame; to wake one up, a third of that.
_idle: deque[_Worker] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # the parent's threads are not there


class Team:
    """Threads that run the same function at the same time; the caller is one of them.

    Where no further thread is to be had, by a limit or because the interpreter ends, the team is smaller: the caller
    alone does all. Threads outlive their team, and wait for the next one.

    Args:
        threads: How many at most, the caller included.

    Attributes:
        size: How many there are.
    """

    def __init__(self, threads: int) -> None:
        self._done: Done = SimpleQueue()
        self._others: list[_Worker] = []
        with suppress(RuntimeError):  # no more threads
            for _ in range(threads - 1):
                self._others.append(_take())
        self.size = 1 + len(self._others)

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _idle.extend(self._others)

    def run(self, function: Callable[[], object]) -> None:
        """Call a function in every thread, which shares out the work by itself, and wait for all.

        What one of them raises is raised.
        """
        for other in self._others:
            other.tasks.put((function, self._done))
        try:
            function()
        finally:
            failures = [self._done.get() for _ in self._others]
        for failure in filter(None, failures):
            raise failure


def _take() -> _Worker:
    """A thread that waits, or a new one; raises RuntimeError where there is none to be had."""
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()
