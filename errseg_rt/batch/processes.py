"""A crew of processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from errseg_rt.batch.crew import Answer, Task, Worker
from errseg_rt.datasets.inputs import Item

_END = 5.0  # seconds that a worker gets to end by itself


class Processes:
    """Workers that are processes, each started anew, with a pipe to it; use it in a `with` block.

    A worker whose driver is gone ends after the item that it has.

    Args:
        task: What they do.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._context = multiprocessing.get_context("spawn")  # what ONNX Runtime has does not go through a fork
        self._crew: dict[int, tuple[Any, Connection]] = {}
        self._hired = 0

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._crew.values():
            connection.close()
            if kind is not None:
                process.terminate()
        for process, _ in self._crew.values():
            process.join(_END)
            if process.is_alive():
                process.kill()
                process.join()
        self._crew.clear()

    def hire(self) -> int:
        """As `Crew.hire`."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self._task, theirs), daemon=True)
        process.start()
        theirs.close()
        self._hired += 1
        self._crew[self._hired] = process, ours
        return self._hired

    def give(self, worker: int, item: Item) -> None:
        """As `Crew.give`."""
        with suppress(OSError):  # it is dead, as `answers` will say
            self._crew[worker][1].send(item)

    def answers(self, seconds: float) -> list[tuple[int, Answer]]:
        """As `Crew.answers`."""
        numbers = {connection: number for number, (_, connection) in self._crew.items()}
        found = []
        for ready in wait(list(numbers), seconds):
            assert isinstance(ready, Connection)
            number = numbers[ready]
            try:
                found.append((number, ready.recv()))
            except (EOFError, OSError):
                process, connection = self._crew.pop(number)
                connection.close()
                process.join()
                found.append((number, Answer("died", _ended(process.exitcode))))
        return found


def _serve(task: Task, connection: Connection) -> None:
    """What a worker does until its driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; the driver ends its workers
    worker = Worker(task)
    try:
        connection.send(worker.open())
        while True:
            connection.send(worker.do(connection.recv()))
    except (EOFError, OSError):
        return


def _ended(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    memory = ", as the system does where memory is short" if -code == getattr(signal, "SIGKILL", 9) else ""
    return f"by signal {-code}{memory}"
