"""Workers that go through items, in processes of their own: none is lost, whatever becomes of a worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from errseg_rt.batch.crew import TRIES, Answer, go_through
from errseg_rt.batch.processes import Processes
from errseg_rt.errors import EngineError
from tests.batch.tasks import Odd, items

BY_SYSTEM = "by signal 9, as the system does where memory is short"


def run(task: Odd, names: tuple[str, ...], workers: int = 2) -> dict[str, object]:
    with Processes(task) as crew:
        found = [(item.name, done) for item, done in go_through(crew, items(*names), workers)]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_what_goes_wrong_with_an_item_ends_nothing_but_itself(tmp_path: Path) -> None:
    assert run(Odd(tmp_path), ("a", "bad", "strange", "b", "mends", "dies", "c")) == {
        **{name: {"name": name} for name in ("a", "b", "c", "mends")},
        "bad": "bad: is bad",
        "strange": "strange: KeyError: 'of ours'",
        "dies": f"dies: {TRIES} workers died over it, the last {BY_SYSTEM}",
    }
    attempts = sorted(path.name for path in tmp_path.iterdir())
    assert attempts == ["a-0", "b-0", "bad-0", "c-0", "dies-0", "dies-1", "dies-2", "mends-0", "mends-1", "strange-0"]


@pytest.mark.parametrize(
    ("opening", "names", "error"),
    [
        ("dies", ("a", "b"), f"{TRIES} workers in a row died before they took a file, the last with exit code 3"),
        ("fails", ("a",), "nothing to see here"),
        ("", ("full", "a"), "No space left on device: there"),
    ],
)
def test_where_no_worker_can_go_on(tmp_path: Path, opening, names, error) -> None:
    with pytest.raises(EngineError, match=error):
        run(Odd(tmp_path, opening), names, workers=1)


def test_nothing_to_do(tmp_path: Path) -> None:
    assert run(Odd(tmp_path, "dies"), ()) == {}


def test_workers_end_with_their_crew(tmp_path: Path) -> None:
    with Processes(Odd(tmp_path)) as crew:
        list(go_through(crew, items("a", "b"), 2))
        running = [process for process, _ in crew._crew.values()]
        assert all(process.is_alive() for process in running)
    assert [process.exitcode for process in running] == [0, 0]


class Scripted:
    """A crew whose workers do what is written: one list of answers for each worker."""

    def __init__(self, *scripts: list[Answer]) -> None:
        self._scripts = list(scripts)
        self.given: dict[int, list[str]] = {}
        self._coming: list[tuple[int, Answer]] = []

    def hire(self) -> int:
        worker = len(self.given)
        self.given[worker] = []
        self._coming.append((worker, self._scripts[worker].pop(0)))
        return worker

    def give(self, worker: int, item) -> None:
        self.given[worker].append(item.name)
        self._coming.append((worker, self._scripts[worker].pop(0)))

    def answers(self, seconds: float) -> list[tuple[int, Answer]]:
        coming, self._coming = self._coming, []
        return coming


def test_what_a_dead_worker_had_is_given_to_another() -> None:
    opened, done = Answer("opened"), [Answer("done", {"of": number}) for number in range(4)]
    crew = Scripted([opened, Answer("died", "so")], [opened, done[1], done[2], done[3]], [opened])
    found = [(item.name, entry) for item, entry in go_through(crew, items("a", "b", "c"), 2)]
    assert {name for name, _ in found} == {"a", "b", "c"}
    first = crew.given[0][0]
    assert first in crew.given[1] + crew.given.get(2, [])


def test_that_no_worker_comes_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    class Late(Scripted):
        def answers(self, seconds: float) -> list[tuple[int, Answer]]:
            return super().answers(seconds) if told else []

    monkeypatch.setattr("errseg_rt.batch.crew.SLOW", -1.0)
    crew = Late([Answer("opened"), Answer("done", {})])
    assert len(list(go_through(crew, items("a"), 1, lambda: told.append(1)))) == 1
    assert told == [1]


def test_workers_whose_driver_is_gone_end(tmp_path: Path) -> None:
    crew = Processes(Odd(tmp_path))
    crew.hire()
    while not crew.answers(1.0):
        pass
    ((process, connection),) = crew._crew.values()
    os.kill(process.pid, signal.SIGINT)  # Ctrl-C is the driver's to answer
    connection.close()
    end = time.monotonic() + 30
    while process.exitcode is None:
        assert time.monotonic() < end
        process.join(0.1)
    assert process.exitcode == 0
