"""What does another execution provider of ONNX Runtime bring to the embedded bundle, and does it give the same labels?

    python -m benchmarks.providers --provider OpenVINOExecutionProvider --frames camvid/val

Whole frames through `Runtime`, in fp32 and in int8, each precision against the same on ONNX Runtime's CPU provider,
timed in turn. All are held against fp32 on the CPU provider, the one that the bundle's own figures were measured with.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.report import Row, compare, finish
from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.datasets import ConfusionMatrix
from errseg_rt.export.engines.builds import BuildOptions, build_engine
from errseg_rt.export.engines.frames import load_frames
from errseg_rt.scenes import StreetScene

SIZES = ((360, 480), (1024, 2048))
MANY = 100  # sizes of frames that come one after the other

_PROGRAM = """
import re, sys
from pathlib import Path
import numpy as np
from errseg_rt import Runtime

def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
with Runtime(providers=[sys.argv[1]]) as runtime:
    runtime.segment(frame)
    before = resident()
    for index in range(int(sys.argv[2])):
        runtime.segment(np.ascontiguousarray(frame[: 200 + 7 * index % 280, : 240 + 13 * index % 400]))
print(resident() - before)  # KiB
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="OpenVINOExecutionProvider")
    parser.add_argument("--frames", type=Path, help="folder of frames, with labels beside them or without")
    parser.add_argument("--pairs", type=int, default=24)
    args, rest = parser.parse_known_args()
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        source = Bundle.open("camvid")
        bundle = write_bundle(Path(folder) / "b", source.manifest, {n: source.read(n) for n in source.manifest.files})
        build_engine(bundle, BuildOptions("onnxruntime", "int8", frames=args.frames))
        for precision in ("fp32", "int8"):
            rows += measured(bundle, precision, args.provider, args.frames, args.pairs)
    rows.append(growth(args.provider))
    finish(rows, "providers", rest)


def measured(bundle: Bundle, precision: str, provider: str, frames: Path | None, pairs: int) -> list[Row]:
    """Labels and times of a provider in a precision."""
    where = f"{precision}/{provider}"
    with (
        Runtime(bundle, precision=precision, providers=[provider]) as ours,
        Runtime(bundle, precision=precision) as theirs,
        Runtime(bundle) as reference,
    ):
        rows = labels(where, ours, theirs, reference, frames)
        for size in SIZES:
            rows += times(f"{where}@{size[0]}x{size[1]}", ours, theirs, StreetScene(0, *size).frame(0).frame, pairs)
    return rows


def times(where: str, ours: Runtime, theirs: Runtime, frame: npt.NDArray[np.uint8], pairs: int) -> list[Row]:
    """Time of a frame, and processor time of all its threads, which a busy machine changes less."""
    spent: dict[Runtime, list[float]] = {ours: [], theirs: []}

    def segment(runtime: Runtime) -> None:
        begun = time.process_time()
        runtime.segment(frame)
        spent[runtime].append(1000 * (time.process_time() - begun))

    note = f"onnxruntime {onnxruntime.__version__}, {ours.options.cores} threads"
    name = "providers/frame_vs_cpu"
    row = compare(f"{name}@{where}", lambda: segment(ours), lambda: segment(theirs), pairs=pairs, note=note)
    mine, other = (np.array(spent[runtime][-pairs:]) for runtime in (ours, theirs))
    low, middle, high = (float(q) for q in np.quantile(other / mine, (0.1, 0.5, 0.9)))
    value, baseline = float(np.median(mine)), float(np.median(other))
    return [
        row,
        Row(f"providers/processor_time_vs_cpu@{where}", value, "ms", baseline, middle, (low, middle, high), note),
    ]


def growth(provider: str) -> Row:
    """What a process takes for frames of many sizes, beyond the largest; the baseline is the CPU provider's."""
    taken = []
    for each in (provider, "CPUExecutionProvider"):
        command = [sys.executable, "-c", _PROGRAM, each, str(MANY)]
        taken.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024 / 1e6)
    return Row(f"providers/memory_of_{MANY}_sizes@{provider}", taken[0], "MB", taken[1], note="200x240 to 480x640")


def labels(where: str, ours: Runtime, theirs: Runtime, reference: Runtime, folder: Path | None) -> list[Row]:
    """Labels that are those of fp32 on the CPU, and mIoU where the truth is known; the baseline is the CPU's share."""
    manifest = reference.manifest
    frames = load_frames(folder, manifest, SIZES[0])
    equal: list[tuple[float, float]] = []
    scores = [ConfusionMatrix(len(manifest.classes)) for _ in range(2)]
    for frame, truth in zip(frames.check, frames.truths, strict=True):
        wanted = reference.segment(frame).labels
        found = [runtime.segment(frame).labels for runtime in (ours, theirs)]
        equal.append((float(np.mean(found[0] == wanted)), float(np.mean(found[1] == wanted))))
        for matrix, each in zip(scores, found, strict=True):
            if truth is not None:
                matrix.add(truth, each)
    (mean, other), least = np.mean(equal, axis=0), min(share for share, _ in equal)
    note = f"{len(equal)} frames, at least {least:.3%} of one"
    rows = [Row(f"providers/labels_as_fp32_on_cpu@{where}", 100 * float(mean), "%", 100 * float(other), note=note)]
    if frames.truths[0] is not None:
        miou, plain = (100 * matrix.miou_of_truth() for matrix in scores)
        rows.append(Row(f"providers/miou@{where}", miou, "%", plain, note=note))
    return rows


if __name__ == "__main__":
    main()
