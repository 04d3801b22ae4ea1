"""What does `import errseg_rt` add to `import numpy, cv2`, and what does opening a bundle cost, all of it checked?

python -m benchmarks.import_time
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from benchmarks.report import Row, finish
from errseg_rt.bundle.bundle import Bundle

_RUNS = 10


def best(program: str) -> float:
    """Least seconds of ten fresh processes."""
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def measure() -> Row:
    """Best of ten with the package, less best of ten without."""
    bare, ours = best("import numpy, cv2"), best("import numpy, cv2, errseg_rt")
    note = f"best of {_RUNS}: {bare:.3f} s without, {ours:.3f} s with"
    return Row("import/added", ours - bare, "s", note=note)


def opening() -> Row:
    """Opening the embedded bundle: its manifest is read, and the SHA-256 of every file computed."""
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        bundle = Bundle.open("camvid")
        times.append(time.perf_counter() - start)
    size = sum(record.size for record in bundle.manifest.files.values())
    low, middle, high = (float(q) for q in np.quantile(times, (0.1, 0.5, 0.9)))
    note = f"{size / 1e6:.1f} MB in {len(bundle.manifest.files)} files; bar: 0.1 s"
    return Row("bundle/open", middle, "s", quantiles=(low, middle, high), note=note)


if __name__ == "__main__":
    finish([measure(), opening()], "import_time")
