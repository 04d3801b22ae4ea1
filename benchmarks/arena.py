"""How much memory do ways to keep ONNX Runtime's take, and what do they cost in time?

    python -m benchmarks.arena

Each way has a process of its own, in turn and several times: its peak after some frames of a rendered street of
1025x2049, its resident memory after them, and the processor time of a frame on one thread; then another that sees
frames of a hundred sizes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import numpy as np

from benchmarks.report import Row, finish

WAYS = {
    "ours": "",
    "doubled_to_1_GiB": "arena._LARGEST_DOUBLED = {'max_power_of_two_extend_bytes': 1 << 30}",
    "doubled_to_1_MiB": "arena._LARGEST_DOUBLED = {'max_power_of_two_extend_bytes': 1 << 20}",
    "as_requested": "arena._LARGEST_DOUBLED = {'arena_extend_strategy': 1}",
    "given_back_each_run": "after = lambda: arena._arena().shrink()",
    "one_for_each_session": "engine.share = lambda options: None",
    "none": "engine.share = lambda options: setattr(options, 'enable_cpu_mem_arena', False)",
    "pattern": "engine.share = lambda options: (setattr(options, 'enable_mem_pattern', True), arena.share(options))",
}
FRAMES, VARIED = 4, 50
SIDES = (300, 1100)

_PROGRAM = """
import re, sys, time
import numpy as np
from errseg_rt import Runtime
from errseg_rt.engines import arena, onnxruntime as engine
from errseg_rt.scenes import StreetScene

def memory(key):
    return int(re.search(key + r":\\s*(\\d+)", open("/proc/self/status").read())[1]) * 1024 / 1e6

after = lambda: None
{way}
count, least, most = map(int, sys.argv[1:])
rng, times = np.random.default_rng(0), []
sizes = rng.integers(least, most, (100, 2)) if most else None
frame = None if most else StreetScene(0, 1025, 2049).frame(0).frame
with Runtime(threads=1) as runtime:
    for index in range(count + 1):
        if most:
            height, width = sizes[rng.integers(len(sizes))]
            frame = rng.integers(0, 256, (height, width, 3), np.uint8)
        start = time.process_time()
        runtime.segment(frame)
        after()
        times.append(time.process_time() - start)
    print(memory("VmHWM"), memory("VmRSS"), 1000 * np.median(times[1:]))
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="how often each way has a process")
    args, rest = parser.parse_known_args()
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(args.times):
        for way in WAYS:
            found[way].append([*measure(way, FRAMES, 0, 0), *measure(way, VARIED, *SIDES)[1:2]])
    rows = []
    for way, values in found.items():
        peak, resident, took, varied = (float(median) for median in np.median(values, axis=0))
        note = f"resident {resident:.0f} MB; {VARIED} frames of sides of {SIDES[0]} to {SIDES[1]}: {varied:.0f} MB"
        rows += [Row(f"arena/peak/{way}", peak, "MB", note=note), Row(f"arena/time/{way}", took, "ms")]
    finish(rows, "arena", rest)


def measure(way: str, count: int, least: int, most: int) -> list[float]:
    """Peak and resident memory in MB, and the median frame in ms."""
    program = _PROGRAM.format(way=WAYS[way])
    command = [sys.executable, "-c", program, str(count), str(least), str(most)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
