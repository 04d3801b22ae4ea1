"""Steps that threads share: each begins once all chunks of the one before are done."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from errseg_rt.kernels.compiled import compiled
from errseg_rt.kernels.refine.turns import Step, claim, run_in_turn, tell
from errseg_rt.kernels.team import Team


@compiled
def take(counter):
    return claim(counter)


@compiled
def leave(counter):
    tell(counter)


def step_of(chunks, do):
    """A step that calls `do(chunk)` for each chunk."""

    def run(counter):
        while (chunk := take(counter)) < chunks:
            if do(chunk) is False:
                return False
            leave(counter)
        return True

    return Step(run, chunks)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("chunks", [(1, 1), (7, 0, 3), (0,), (2, 9, 1, 4), ()], ids=str)
def test_each_chunk_is_done_once_and_no_step_before_the_one_before(threads, chunks):
    seen = []

    def note(number):
        def do(chunk):
            time.sleep(0.001 * (chunk % 3))
            seen.append((number, chunk))

        return do

    with Team(threads) as team:
        assert run_in_turn(team, [step_of(count, note(number)) for number, count in enumerate(chunks)])
    assert sorted(seen) == [(number, chunk) for number, count in enumerate(chunks) for chunk in range(count)]
    assert [number for number, _ in seen] == sorted(number for number, _ in seen)


@pytest.mark.parametrize("threads", [1, 3])
def test_where_one_chunk_is_unwell_the_rest_is_left(threads):
    later = []
    with Team(threads) as team:
        assert not run_in_turn(team, [step_of(50, lambda chunk: chunk != 4), step_of(5, later.append)])
    assert later == []


@pytest.mark.parametrize("threads", [1, 3])
def test_what_a_thread_raises_is_raised_and_nobody_waits(threads):
    met = threading.Barrier(threads)

    def fail(chunk):
        met.wait(60)  # all threads have a chunk
        if chunk == 0:
            raise MemoryError("no room")

    with Team(threads) as team, pytest.raises(MemoryError, match="no room"):
        run_in_turn(team, [step_of(threads, fail), step_of(3, lambda chunk: None)])


def test_what_was_written_for_a_chunk_is_seen_in_the_next_step():
    values, sums = np.zeros(64), np.zeros(64)

    def write(chunk):
        values[chunk] = chunk + 1

    def add(chunk):
        sums[chunk] = values.sum()

    with Team(4) as team:
        for _ in range(20):
            values[:] = sums[:] = 0
            assert run_in_turn(team, [step_of(64, write), step_of(64, add)])
            assert (sums == 64 * 65 / 2).all()
