"""What every benchmark shares: paired timing, a row of results, and a file with a stamp of the machine."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.places.driver import gpu_name
from errseg_rt.system.stamp import machine_stamp

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: What was measured, `operation/against@where`.
        value: The figure.
        unit: Its unit.
        baseline: The figure that it is held against, in the same unit; None where there is none.
        ratio: How many times better it is than the baseline.
        quantiles: 10th, 50th and 90th percentile of the figure, or of the pairwise ratio where there is a baseline.
        note: What a reader must know.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    quantiles: tuple[float, float, float] | None = None
    note: str = ""


def compare(
    name: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    *,
    pairs: int = 20,
    warm_up: int = 2,
    note: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> Row:
    """Time two functions in turn, ours and theirs, so that a drift of the machine hits both.

    Args:
        name: Name of the row.
        ours: What is measured.
        theirs: The baseline.
        pairs: How often each is timed.
        warm_up: How often each is run before.
        note: What a reader must know.
        clock: Gives seconds; `time.process_time`, those of the processor, which other programs do not lengthen.
    """
    for _ in range(warm_up):
        ours(), theirs()
    times = np.array([[_milliseconds(function, clock) for function in (ours, theirs)] for _ in range(pairs)])
    ratios = times[:, 1] / times[:, 0]
    low, middle, high = (float(q) for q in np.quantile(ratios, (0.1, 0.5, 0.9)))
    value, baseline = (float(median) for median in np.median(times, axis=0))
    return Row(name, value, "ms", baseline, middle, (low, middle, high), note)


def spread(name: str, values: npt.NDArray[np.float64], unit: str, note: str) -> Row:
    """A row of the median of some figures, with their 10th, 50th and 90th percentile."""
    low, middle, high = (float(q) for q in np.quantile(values, (0.1, 0.5, 0.9)))
    return Row(name, middle, unit, quantiles=(low, middle, high), note=note)


def finish(rows: Sequence[Row], stem: str, arguments: Sequence[str] | None = None) -> None:
    """Print rows, and write them into the file that `--json` names, by default `results/STEM.json`.

    Args:
        rows: What was measured.
        stem: Name of the benchmark.
        arguments: Of the command line; None: all of it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, default=RESULTS / f"{stem}.json")
    path = parser.parse_args(arguments).json
    for row in rows:
        against = "" if row.ratio is None else f"  {row.ratio:.2f} x better than {row.baseline:.4g} {row.unit}"
        print(f"{row.name}: {row.value:.4g} {row.unit}{against}{row.note and f'  ({row.note})'}")
    content = {"machine": machine_stamp(gpu_name()), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _milliseconds(function: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return 1000 * (clock() - start)
