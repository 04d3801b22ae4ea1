"""Does a runtime keep its memory, threads and handles over ten thousand frames of mixed sizes, on two threads?

    python -m benchmarks.many_frames

Linux only: it reads what the kernel counts of this process. Frames have one of `SIZES` sizes, sides between `SIDES`, in
an order that chance draws; every tenth frame has a budget, every seventh asks for confidence.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.report import Row, finish
from errseg_rt import Runtime

SIDES = (17, 400)  # pixels, both ends included
SIZES = 100
THREADS = 2
WARM = 1000  # frames until memory is looked at: every arena has met its largest tensors by then


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="frames")
    args, rest = parser.parse_known_args()
    finish(measured(args.count), "many_frames", rest)


def measured(count: int, warm: int = WARM) -> list[Row]:
    """Resident memory, threads and handles after `warm` frames and after `count`."""
    with Runtime(threads=1) as runtime, ThreadPoolExecutor(THREADS) as pool:
        runtime.warm_up()
        before = run(runtime, pool, range(warm))
        after = run(runtime, pool, range(warm, count))
    closed = state()
    note = f"frames {warm} to {count}, {THREADS} threads, {SIZES} sizes, sides {SIDES[0]} to {SIDES[1]}"
    growth = Row("many_frames/memory_growth", 100 * (after[0] / before[0] - 1), "%", note=f"{note}; bar: 2 %")
    counts = [
        Row(f"many_frames/{what}", after[at], what, baseline=before[at], note=f"beside {before[at]} at {warm}")
        for at, what in ((1, "threads"), (2, "handles"))
    ]
    left = Row("many_frames/threads_after_close", closed[1], "threads")
    return [growth, Row("many_frames/memory", after[0], "MB", note="resident, at the end"), *counts, left]


def run(runtime: Runtime, pool: ThreadPoolExecutor, numbers: range) -> tuple[float, int, int]:
    """Segment the frames of these numbers; what the process holds afterwards."""

    def segment(number: int) -> int:
        frame = frame_of(number)
        options = {"budget": 0.1} if number % 10 == 0 else {}
        result = runtime.segment(frame, confidence=number % 7 == 0, **options)
        if result.labels.shape != frame.shape[:2]:
            raise AssertionError(f"frame {number}: labels are {result.labels.shape}, wanted {frame.shape[:2]}")
        return int(result.flagged.any())

    for _ in batches(pool.map(segment, numbers)):
        pass
    return state()


def batches(results: Iterator[int]) -> Iterator[int]:
    """The results, with a line now and then."""
    flagged = 0
    for done, is_flagged in enumerate(results, 1):
        flagged += is_flagged
        if done % 1000 == 0:
            memory, threads, handles = state()
            print(
                f"{done} frames, {flagged} flagged: {memory:.0f} MB, {threads} threads, {handles} handles", flush=True
            )
        yield is_flagged


def frame_of(number: int) -> npt.NDArray[np.uint8]:
    """Smooth colours with some noise, `uint8 [H, W, 3]`, of a size of their own."""
    rng = np.random.default_rng(number)
    sizes = np.random.default_rng(0).integers(SIDES[0], SIDES[1] + 1, (SIZES, 2))
    height, width = sizes[rng.integers(SIZES)]
    ramp = np.add.outer(np.linspace(0, rng.integers(256), height), np.linspace(0, rng.integers(256), width))
    frame = ramp[..., None] / 2 + rng.integers(0, 64, (height, width, 3))
    return frame.astype(np.uint8)


def state() -> tuple[float, int, int]:
    """Resident memory in MB, threads and open handles of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    memory, threads = (int(re.search(rf"{name}:\s*(\d+)", status)[1]) for name in ("VmRSS", "Threads"))
    return memory * 1024 / 1e6, threads, len(os.listdir("/proc/self/fd"))


if __name__ == "__main__":
    main()
