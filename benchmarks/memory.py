"""How much memory does one frame take, the whole process counted?

python -m benchmarks.memory
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.report import Row, finish

_PROGRAM = """
import resource, sys
import numpy as np
from errseg_rt import Runtime
height, width = int(sys.argv[1]), int(sys.argv[2])
frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
with Runtime(threshold=float(sys.argv[3])) as runtime:
    result = runtime.segment(frame)
    assert result.flagged.any()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB on Linux
"""


def measure(height: int, width: int) -> Row:
    """Peak resident memory of a fresh process that segments one frame, detail branch included."""
    arguments = [sys.executable, "-c", _PROGRAM, str(height), str(width), "0.01"]
    peak = int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    return Row(f"memory/peak@{height}x{width}", peak * 1024 / 1e6, "MB", note="whole process, ONNX Runtime, CPU")


if __name__ == "__main__":
    finish([measure(360, 480), measure(1025, 2049)], "memory")
