"""Threads that work together, also where none is to be had."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from functools import partial

import numpy as np
import pytest

from errseg_rt.kernels.compiled import share
from errseg_rt.kernels.team import Team


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_thread_runs_the_function(threads: int) -> None:
    met, seen = threading.Barrier(threads), set()

    def work() -> None:
        met.wait(60)  # all are there at the same time
        seen.add(threading.get_ident())

    with Team(threads) as team:
        team.run(work)
        assert len(seen) == threads
        assert threading.get_ident() in seen
        team.run(work)
        assert len(seen) == threads


def test_the_next_team_has_the_same_threads() -> None:
    def gather() -> set[int]:
        met, seen = threading.Barrier(3), set()

        def work() -> None:
            met.wait(60)
            seen.add(threading.get_ident())

        with Team(3) as team:
            team.run(work)
        return seen

    teams = [gather() for _ in range(3)]
    assert teams[0] == teams[1] == teams[2]
    with Team(3), Team(3) as team:  # both at once: they have no thread in common
        assert team.size == 3
        assert gather().isdisjoint(teams[0] - {threading.get_ident()})


def test_what_was_worked_on_is_let_go() -> None:
    class Frame:
        pass

    frame = Frame()
    seen = weakref.ref(frame)
    with Team(2) as team:
        team.run(partial(id, frame))
    del frame
    deadline = time.monotonic() + 60
    while seen() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen() is None


FORKED = """
import os
import numpy as np
from errseg_rt.kernels.compiled import share

def work():
    done = np.zeros(100, int)
    def part(begin, end):
        done[begin:end] += 1
    share(4, 100, part)
    return int(done.sum())

assert work() == 100
child = os.fork()
if not child:
    os._exit(work() - 100)
assert os.waitpid(child, 0)[1] == 0
assert work() == 100
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_has_threads_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("in_the_caller", [True, False])
def test_what_one_raises_is_raised_when_all_are_done(in_the_caller: bool) -> None:
    caller, met, ended = threading.get_ident(), threading.Barrier(3), []

    def work() -> None:
        met.wait(60)
        if (threading.get_ident() == caller) == in_the_caller:
            raise LookupError("lost")
        ended.append(1)

    with Team(3) as team, pytest.raises(LookupError, match="lost"):
        team.run(work)
    assert len(ended) == (2 if in_the_caller else 1)


@pytest.mark.parametrize("available", [0, 1])
def test_without_further_threads_the_caller_does_the_work(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    start, begun = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(begun) >= available:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr("errseg_rt.kernels.team._idle", deque())
    monkeypatch.setattr(threading.Thread, "start", limited)
    done = np.zeros(100, int)

    def part(begin: int, end: int) -> None:
        done[begin:end] += 1

    share(8, 100, part)
    assert (done == 1).all()
    assert len(begun) == available


OUTLIVING = """
import atexit, sys, threading, time
import numpy as np
from errseg_rt.kernels.compiled import share

def work(name):
    done = np.zeros(100, int)
    def part(begin, end):
        done[begin:end] += 1
    share(4, 100, part)
    print(name, int(done.sum()), flush=True)

def outlive():
    threading.main_thread().join()
    work("thread")

atexit.register(work, "atexit")
threading.Thread(target=outlive).start()
"""


def test_threads_that_outlive_the_main_thread_and_what_runs_at_exit() -> None:
    done = subprocess.run([sys.executable, "-c", OUTLIVING], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["thread 100", "atexit 100"]
