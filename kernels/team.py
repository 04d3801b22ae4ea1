"""Threads that work on one thing together."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType


class Team:
    """Threads that run the same function at the same time; the caller is one of them.

    They are plain threads, as an executor takes no more work once the main thread has ended. Where no further thread is
    to be had, by a limit or because the interpreter ends, the team is smaller: the caller alone does all.

    Args:
        threads: How many at most, the caller included.

    Attributes:
        size: How many there are.
        refusal: Why there are no more, in Python's words; empty where there are as many as were asked for.
    """

    def __init__(self, threads: int) -> None:
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._others: list[Thread] = []
        self.refusal = ""
        for _ in range(threads - 1):
            other = Thread(target=self._serve, daemon=True)  # nobody but the caller waits for it
            try:
                other.start()
            except RuntimeError as error:
                self.refusal = str(error)
                break
            self._others.append(other)
        self.size = 1 + len(self._others)

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._others:
            self._tasks.put(None)
        for other in self._others:
            other.join()

    def run(self, function: Callable[[], object]) -> None:
        """Call a function in every thread, which shares out the work by itself, and wait for all.

        What one of them raises is raised.
        """
        for _ in self._others:
            self._tasks.put(function)
        try:
            function()
        finally:
            failures = [self._done.get() for _ in self._others]
        for failure in filter(None, failures):
            raise failure

    def _serve(self) -> None:
        while (function := self._tasks.get()) is not None:
            try:
                function()
            except BaseException as error:
                self._done.put(error)
            else:
                self._done.put(None)
