"""Compiled kernels, also where nothing may be written."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from errseg_rt.kernels import compiled as module


def double(x):
    return 2 * x


@pytest.mark.parametrize("writable", [True, False], ids=["cached", "no_place_for_a_cache"])
def test_kernels_run_with_and_without_a_cache(monkeypatch: pytest.MonkeyPatch, writable: bool) -> None:
    taken = []

    def njit(cache=False, **options):
        taken.append(cache)
        if cache and not writable:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(module, "njit", njit)
    assert module.compiled(double)(21) == 42
    assert taken == ([True] if writable else [True, False])


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
