"""Rows of figures: a time, two times, a share of a ceiling."""

from __future__ import annotations

from typing import Literal

from benchmarks.on_gpu.timing import Ceilings, Times
from benchmarks.report import Row


def single(name: str, times: Times, note: str = "") -> Row:
    """A time."""
    quantiles = (1e3 * times.low, 1e3 * times.middle, 1e3 * times.high)
    return Row(name, 1e3 * times.middle, "us", quantiles=quantiles, note=note)


def against(name: str, ours: Times, theirs: Times, note: str, unit: Literal["us", "ms"] = "us") -> Row:
    """A time, held against another."""
    ratios = (theirs.low / ours.high, theirs.middle / ours.middle, theirs.high / ours.low)
    of_ms = {"us": 1e3, "ms": 1.0}[unit]
    return Row(name, of_ms * ours.middle, unit, of_ms * theirs.middle, ratios[1], ratios, note)


def roofline(name: str, moved: float, operations: float, times: Times, ceilings: Ceilings) -> Row:
    """The share of a ceiling that a time reaches."""
    share, ceiling = ceilings.share(moved, operations, times.middle)
    note = (
        f"of the {ceiling}; {moved / 1e6:.1f} MB, {operations / 1e9:.2f} GFLOP, {1e3 * times.middle:.1f} us: "
        f"{moved / times.middle / 1e6:.0f} GB/s, {operations / times.middle / 1e9:.1f} TFLOP/s"
    )
    return Row(f"roofline/{name}", 100 * share, "%", note=note)
