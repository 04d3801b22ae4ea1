"""The progress bars of everything that lasts, and its lines in a log."""

from __future__ import annotations

import logging
import sys
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


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Go through `items` under a progress bar, where a person looks on."""
    if not is_watched():  # even a bar that is disabled may leave an empty line among the errors
        yield from items
        return
    yield from rich_track(items, title, total, console=_STDERR, transient=True)


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
