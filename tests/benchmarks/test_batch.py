"""The benchmark of batches counts what it says."""

from __future__ import annotations

import pytest

from benchmarks import batch


def entries(**times: list[float]) -> list[dict]:
    return [{"worker": worker, "finished": time} for worker, each in times.items() for time in each]


def test_rates_between_the_third_file_and_the_last() -> None:
    rate, at = batch.rates(entries(a=[9.0, 5.0, 1.0, 2.0, 7.0], b=[3.0, 4.0, 6.0, 6.5]), 2)
    assert (rate, at) == (2 / 4 + 1 / 0.5, 6.0)


def test_too_few_files() -> None:
    for workers, times in ((2, {"a": [1.0] * 9}), (1, {"a": [1.0, 2.0, 3.0]})):
        with pytest.raises(SystemExit, match=f"wanted {workers} workers"):
            batch.rates(entries(**times), workers)


def test_two_against_one() -> None:
    two, *starts = batch.rows_of("ray", [[(2.0, 20.0), (3.0, 30.0)], [(4.0, 10.0), (8.0, 15.0)]], 7)
    assert (two.name, two.value, two.baseline, two.ratio) == ("batch/ray/two_workers", 5.5, 3.0, 1.75)
    assert [(row.value, row.unit) for row in starts] == [(15.0, "s"), (22.5, "s")]
