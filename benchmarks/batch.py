"""Do two workers of a batch do nearly twice what one does, and what does it take them to start?

    python -m benchmarks.batch

`errseg-rt batch` segments rendered streets, by one worker of one thread and by two, in turn: on a Ray cluster of this
machine's own, where Ray is installed (extra `ray`), and in plain processes. A worker's rate is that between its third
file and its last, as it says itself in what it notes of each; start-up, from the command to the third file of the
slowest worker, is reported apart. Wants a machine that does nothing else, and has two cores or more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.report import Row, finish
from errseg_rt.scenes import StreetScene

HEIGHT, WIDTH = 360, 480
FIRST = 3  # file of a worker from which on its rate counts
WAYS = {"ray": ("--ray", "local"), "processes": ()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120, help="images for each worker")
    parser.add_argument("--pairs", type=int, default=5, help="how often one worker and two are timed")
    args, rest = parser.parse_known_args()
    ways = {name: words for name, words in WAYS.items() if name != "ray" or find_spec("ray")}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        frame = StreetScene(5, HEIGHT, WIDTH).frame(0).frame
        for name, words in ways.items():
            runs = [
                [timed(Path(place), frame, f"{name}{pair}_{workers}", words, workers, args.count) for workers in (1, 2)]
                for pair in range(args.pairs)
            ]
            rows += rows_of(name, runs, args.count)
    finish(rows, "batch", rest)


def timed(
    place: Path, frame: np.ndarray, name: str, words: Iterable[str], workers: int, count: int
) -> tuple[float, float]:
    """Files a second of some workers, and seconds from the command until each has done its third."""
    images, out = place / f"{name}_in", place / name
    images.mkdir()
    for index in range(count * workers):
        cv2.imwrite(str(images / f"{index:05d}.png"), np.roll(frame, index, axis=1))
    command = [sys.executable, "-c", "from errseg_rt.cli import main; main()", "batch", str(images), "-o", str(out)]
    begun = time.time()
    subprocess.run([*command, "--workers", str(workers), *words], check=True, stdout=subprocess.DEVNULL)
    rate, at = rates([json.loads(path.read_text()) for path in out.glob("*_result.json")], workers)
    return rate, at - begun


def rates(entries: Iterable[Mapping[str, Any]], workers: int) -> tuple[float, float]:
    """Files a second of all workers together, each between its third file and its last; when all were at their third.

    Args:
        entries: What is noted of each file.
        workers: How many there were.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        times[entry["worker"]].append(entry["finished"])
    done = [sorted(each) for each in times.values()]
    if len(done) != workers or min(map(len, done)) <= FIRST:
        raise SystemExit(f"wanted {workers} workers with more than {FIRST} files each, got {sorted(map(len, done))}")
    rate = sum((len(each) - FIRST) / (each[-1] - each[FIRST - 1]) for each in done)
    return rate, max(each[FIRST - 1] for each in done)


def rows_of(name: str, runs: list[list[tuple[float, float]]], count: int) -> list[Row]:
    """Rate of two workers against one, by pairs of runs, and the median start-up of each."""
    ratios = [two[0] / one[0] for one, two in runs]
    low, middle, high = (float(value) for value in np.quantile(ratios, (0.1, 0.5, 0.9)))
    one, two = (statistics.median(run[index][0] for run in runs) for index in (0, 1))
    note = f"{count} files of {HEIGHT}x{WIDTH} a worker, {len(runs)} pairs; bar: 1.6"
    starts = [statistics.median(run[index][1] for run in runs) for index in (0, 1)]
    return [
        Row(f"batch/{name}/two_workers", two, "files/s", one, middle, (low, middle, high), note),
        Row(f"batch/{name}/start/one", starts[0], "s", note="from the command to a worker's third file"),
        Row(f"batch/{name}/start/two", starts[1], "s", note="likewise, of the slower one"),
    ]


if __name__ == "__main__":
    main()
