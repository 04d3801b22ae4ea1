"""Compiled kernels, also where nothing may be written."""

from __future__ import annotations

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
