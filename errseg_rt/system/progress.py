"""The progress bars of everything that lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.progress import track as rich_track

T = TypeVar("T")

# Bars go to stderr: stdout holds answers, which a program may read.
_STDERR = Console(stderr=True)


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Go through `items` under a progress bar, where a person looks on."""
    # A disabled bar is silent; one that is no terminal's would leave an empty line among the errors.
    yield from rich_track(items, title, total, console=_STDERR, transient=True, disable=not _STDERR.is_terminal)


@contextmanager
def busy(title: str) -> Iterator[None]:
    """Say what goes on for the length of a `with` block, where a person looks on."""
    if _STDERR.is_terminal:
        with _STDERR.status(title):
            yield
    else:
        yield


@contextmanager
def phases() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that is told of a phase: its name, steps done, steps in all. It may be called from any thread."""
    with Progress(console=_STDERR, transient=True, disable=not _STDERR.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
            progress.update(tasks[phase], completed=done, visible=done < total)

        yield report
