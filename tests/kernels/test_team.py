"""Threads that work together, also where none is to be had."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from errseg_rt.kernels.compiled import share
from errseg_rt.kernels.team import Team


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_thread_runs_the_function(threads: int) -> None:
    met, seen, before = threading.Barrier(threads), set(), set(threading.enumerate())

    def work() -> None:
        met.wait(60)  # all are there at the same time
        seen.add(threading.get_ident())

    with Team(threads) as team:
        team.run(work)
        assert len(seen) == threads
        assert threading.get_ident() in seen
        team.run(work)
    assert set(threading.enumerate()) <= before


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
