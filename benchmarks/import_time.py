"""What does `import errseg_rt` add to `import numpy, cv2`?

python -m benchmarks.import_time
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.report import Row, finish

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


if __name__ == "__main__":
    finish([measure()], "import_time")
