"""The progress bars of everything that lasts, and its lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.progress import track as rich_track

T = TypeVar("T")

# Bars go to stderr: stdout holds answers, which a program may read.
_STDERR = Console(stderr=True)
_LOG = logging.getLogger("errseg_rt")
_EVERY = 30.0  # seconds from line to line in a log


class LogLines:
    """Progress for a log, which knows no bars: a line at the start, then one every half minute at most.

    Args:
        title: What goes on.
        total: Steps in all.
        clock: Seconds that have passed.
    """

    def __init__(self, title: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.title, self.total, self._clock = title, total, clock
        self._next = clock()

    def at(self, done: int, note: str = "", *, is_due: bool = False) -> None:
        """Say how far it is, where it is time to, or `is_due` in any case."""
        if is_due or self._clock() >= self._next:
            self._next = self._clock() + _EVERY
            print(f"{self.title}: {done}/{self.total}{note}", file=sys.stderr, flush=True)


def track(items: Iterable[T], title: str, total: int, *, logged: bool = False) -> Iterator[T]:
    """Go through `items` under a progress bar, where a person looks on; elsewhere, `logged` asks for lines."""
    if is_watched():  # even a bar that is disabled may leave an empty line among the errors
        yield from rich_track(items, title, total, console=_STDERR, transient=True)
        return
    lines = LogLines(title, total) if logged else None
    for done, item in enumerate(items):
        if lines:
            lines.at(done)
        yield item


@contextmanager
def busy(title: str) -> Iterator[None]:
    """Say what goes on for the length of a `with` block: to a person who looks on, or else as it is logged."""
    if is_watched():
        with _STDERR.status(title):
            yield
        return
    handler, level = logging.StreamHandler(), _LOG.level
    handler.setLevel(logging.INFO)
    _LOG.addHandler(handler)
    _LOG.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        _LOG.setLevel(level)
        _LOG.removeHandler(handler)


@contextmanager
def phases() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that is told of a phase: its name, steps done, steps in all. It may be called from any thread."""
    if not is_watched():
        yield lambda phase, done, total: None
        return
    with Progress(console=_STDERR, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
            progress.update(tasks[phase], completed=done, visible=done < total)

        yield report


def is_watched() -> bool:
    """Whether stderr is a terminal: rich also takes a log for one, where colours are forced."""
    return _STDERR.is_terminal and sys.stderr is not None and sys.stderr.isatty()
