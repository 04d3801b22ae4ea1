"""Workers that go through items: each has one at a time, and what a dead one had is given to another."""

from __future__ import annotations

import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from errseg_rt.batch.kept import Entry, attempted
from errseg_rt.datasets.inputs import Item
from errseg_rt.errors import EngineError, ErrsegError
from errseg_rt.system.lines import escaped, one_line
from errseg_rt.system.shortage import remedy

TRIES = 3
"""Workers that may die over one item, and that may die in a row before they have opened."""
SLOW = 60.0
"""Seconds without any worker after which that is said."""


class Task(Protocol):
    """What a worker does; is pickled, and sent to it."""

    def open(self) -> Any:
        """What `do` needs."""
        ...

    def do(self, opened: Any, item: Item) -> Entry:
        """Do an item."""
        ...


class Answer(NamedTuple):
    """What a worker says, or what is said of it.

    `"opened"`: it takes items. `"done"`: `said` is an item's entry. `"failed"`: `said` is what is wrong with the item.
    `"ended"`: `said` is why no worker can go on. `"died"`: `said` is how.
    """

    kind: Literal["opened", "done", "failed", "ended", "died"]
    said: Any = None


class Worker:
    """Does items, one after the other, and never raises: what goes wrong is an answer.

    Args:
        task: What it does.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._opened: Any = None

    def open(self) -> Answer:
        """Get ready."""
        try:
            self._opened = self._task.open()
        except Exception as error:
            text = one_line(error) if isinstance(error, ErrsegError) else _named(error)
            advice = None if isinstance(error, ErrsegError) else remedy(error)
            return Answer("ended", f"at {socket.gethostname()}: {text}{f'; {advice}' if advice else ''}")
        return Answer("opened")

    def do(self, item: Item) -> Answer:
        """Do an item."""
        try:
            done = attempted(item.path, lambda: self._task.do(self._opened, item))
        except OSError as error:  # of a disk that no result can be written to
            where = f": {escaped(error.filename)}" if error.filename else ""
            return Answer("ended", f"at {socket.gethostname()}: {error.strerror}{where}")
        except Exception as error:  # a fault of ours with one file of many ends nothing but that file
            return Answer("failed", f"{escaped(item.path)}: {_named(error)}")
        return Answer("failed", done) if isinstance(done, str) else Answer("done", done)


class Crew(Protocol):
    """Workers somewhere, by their numbers."""

    def hire(self) -> int:
        """Have one more worker open; its number."""
        ...

    def give(self, worker: int, item: Item) -> None:
        """Give an item to a worker that has none."""
        ...

    def answers(self, seconds: float) -> list[tuple[int, Answer]]:
        """Answers that have come, after some seconds at most; none comes from a worker after it died."""
        ...


def go_through(
    crew: Crew,
    items: Sequence[Item],
    workers: int,
    slow: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Item, Entry | str]]:
    """Do all items; gives each with its entry, or with what is wrong with it, as they get done.

    Args:
        crew: Does them.
        items: The items.
        workers: How many at a time.
        slow: Is called once, where no worker takes items after a minute.

    Raises:
        EngineError: No worker can go on, or workers die before they take items.
    """
    waiting, tries = deque(items), Counter[Path]()
    opening, idle, busy = set[int](), list[int](), dict[int, Item]()
    deaths, slow_at = 0, time.monotonic() + SLOW
    while waiting or busy:
        while len(opening) + len(idle) + len(busy) < min(workers, len(waiting) + len(busy)):
            opening.add(crew.hire())
        while waiting and idle:
            worker = idle.pop()
            busy[worker] = waiting.popleft()
            crew.give(worker, busy[worker])
        for worker, (kind, said) in crew.answers(1.0):
            item = busy.pop(worker, None)
            if kind == "ended":
                raise EngineError(said)
            if kind == "died":
                if worker in idle:
                    idle.remove(worker)
                if worker in opening:
                    opening.discard(worker)
                    deaths += 1
                    if deaths == TRIES:
                        raise EngineError(f"{TRIES} workers in a row died before they took a file, the last {said}")
                if item is not None:
                    tries[item.path] += 1
                    if tries[item.path] < TRIES:
                        waiting.append(item)
                    else:
                        yield item, f"{escaped(item.path)}: {TRIES} workers died over it, the last {said}"
                continue
            if kind == "opened":
                opening.discard(worker)
                deaths, slow_at = 0, float("inf")
            idle.append(worker)
            if item is not None:
                yield item, said
        if time.monotonic() >= slow_at:
            slow_at = float("inf")
            slow()


def _named(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")
