"""What compiled kernels share: their work among threads, and memory that is only read."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from errseg_rt.kernels import compiled as module


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_every_part_is_done_once(count: int, threads: int) -> None:
    done = np.zeros(count, int)
    workers = set()

    def part(begin: int, end: int) -> None:
        done[begin:end] += 1
        workers.add(threading.get_ident())

    module.share(threads, count, part)
    assert (done == 1).all()
    assert len(workers) <= threads


def test_a_failure_in_a_part_is_raised() -> None:
    def part(begin: int, end: int) -> None:
        raise LookupError(f"{begin} to {end}")

    with pytest.raises(LookupError, match=r"\d to \d"):
        module.share(2, 4, part)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads must be at least 1, got {threads}"):
        module.share(threads, 4, lambda begin, end: None)


def test_a_writable_view_shows_the_same_memory_and_keeps_it_alive() -> None:
    array = np.arange(1000, dtype=np.float32).reshape(10, 100)
    assert module.writable(array) is array
    array.setflags(write=False)
    view = module.writable(array)
    assert view.flags.writeable
    assert np.shares_memory(view, array)
    assert (view.dtype, view.shape, view.strides) == (array.dtype, array.shape, array.strides)
    del array
    gc.collect()
    np.testing.assert_array_equal(view.ravel(), np.arange(1000))
