"""How much faster is fusion than what one writes with torch or with NumPy and OpenCV, and what memory does it take?

    python -m benchmarks.fuse_labels

`benchmarks/gpu.py` measures the kernel for GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from benchmarks.report import Row, compare, finish
from errseg_rt.kernels import Geometry, fuse_labels
from errseg_rt.scenes import StreetScene

HEIGHT, WIDTH, CLASSES = 1025, 2049, 19
GRID = (257, 513)
FLAGGED = 0.1
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Operands:
    """Logits of a rendered street, on the grid.

    Attributes:
        semantic: `float32 [C, h, w]`.
        detail: `float32 [C, h, w]`.
        flagged: `bool [h, w]`, where the semantic branch is least sure.
        rows: The flagged pixels of `detail`, `float32 [n, C]`.
        index: `int32 [h, w]`, their row.
    """

    semantic: npt.NDArray[np.float32]
    detail: npt.NDArray[np.float32]
    flagged: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.float32]
    index: npt.NDArray[np.int32]

    def uniform_share(self) -> float:
        """Share of the cells whose corners have one class."""
        winner = np.where(self.flagged, self.detail, self.semantic).argmax(axis=0)
        left, right = winner[:, :-1], winner[:, 1:]
        same = (left[:-1] == right[:-1]) & (left[:-1] == left[1:]) & (left[:-1] == right[1:])
        return float(same.mean())


@lru_cache
def operands() -> Operands:
    """Labels of a rendered street, blurred as a network's answer at stride 4 is, with some noise."""
    labels = StreetScene(0, HEIGHT, WIDTH).frame(0).labels[::4, ::4]
    rng = np.random.default_rng(0)

    def logits(blur: float, noise: float) -> npt.NDArray[np.float32]:
        planes = [cv2.GaussianBlur((labels == c).astype(np.float32), (0, 0), blur) for c in range(CLASSES)]
        rough = noise * rng.standard_normal((CLASSES, *GRID), np.float32)
        coarse = [cv2.GaussianBlur(plane, (0, 0), 2.0) for plane in rough]
        return np.asarray(10 * np.stack(planes) + np.stack(coarse), np.float32)

    semantic, detail = logits(1.5, 2.0), logits(0.7, 1.0)
    best = np.partition(semantic, CLASSES - 2, axis=0)[-2:]
    margin = best[1] - best[0]
    flagged = margin < np.quantile(margin, FLAGGED)
    index = np.where(flagged, flagged.cumsum().reshape(GRID) - 1, -1).astype(np.int32)
    return Operands(semantic, detail, flagged, np.ascontiguousarray(detail[:, flagged].T), index)


def geometry(align_corners: bool) -> Geometry:
    """A frame that the network takes as it is."""
    frame = (HEIGHT, WIDTH)
    return Geometry(GRID, frame, frame, frame, align_corners)


def eager(semantic: torch.Tensor, detail: torch.Tensor, flagged: torch.Tensor) -> torch.Tensor:
    """The same in torch: select, softmax, interpolate, argmax."""
    probabilities = torch.where(flagged, detail.softmax(0), semantic.softmax(0))
    size = (HEIGHT, WIDTH)
    return interpolate(probabilities[None], size=size, mode="bilinear", align_corners=True)[0].argmax(0)


def numpy_cv2(given: Operands) -> npt.NDArray[np.uint8]:
    """The same with OpenCV, a class at a time, which is faster than all classes at once."""

    def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        powers = np.exp(logits - logits.max(axis=0))
        return np.asarray(powers / powers.sum(axis=0))

    probabilities = np.where(given.flagged, softmax(given.detail), softmax(given.semantic))
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    largest = cv2.resize(probabilities[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    for c in range(1, CLASSES):
        plane = cv2.resize(probabilities[c], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        labels[plane > largest] = c
        np.maximum(largest, plane, out=largest)
    return labels


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    args, rest = parser.parse_known_args()
    finish([*on_cpu(args.pairs), *extra_memory()], "fuse_labels", rest)


def on_cpu(pairs: int) -> list[Row]:
    """Time both baselines, after checking that they give the same labels."""
    given = operands()
    torch.set_num_threads(CORES)
    tensors = [torch.from_numpy(array) for array in (given.semantic, given.detail, given.flagged)]
    note = f"{HEIGHT}x{WIDTH}, {CLASSES} classes, {given.uniform_share():.1%} of cells uniform, {CORES} threads"
    aligned, half_pixel = geometry(True), geometry(False)

    def ours(where: Geometry) -> npt.NDArray[np.uint8]:
        labels = fuse_labels(given.semantic, given.detail, given.flagged, where, threads=CORES).labels
        return np.asarray(labels)

    def of_rows() -> npt.NDArray[np.uint8]:
        return np.asarray(fuse_labels(given.semantic, given.rows, given.index, aligned, threads=CORES).labels)

    _check(ours(aligned), eager(*tensors).numpy(), "torch eager")
    _check(ours(half_pixel), numpy_cv2(given), "NumPy and cv2.resize")
    _check(of_rows(), ours(aligned), "fusion of a map")
    named = {
        "vs_torch_eager": (lambda: ours(aligned), lambda: eager(*tensors)),
        "rows_vs_torch_eager": (of_rows, lambda: eager(*tensors)),
        "vs_numpy_cv2": (lambda: ours(half_pixel), lambda: numpy_cv2(given)),
    }
    return [compare(f"fuse_labels/{name}", *both, pairs=pairs, note=note) for name, both in named.items()]


_PROGRAM = """
import ctypes, json, sys
import torch
from benchmarks import fuse_labels as benchmark
torch.set_num_threads(benchmark.CORES)

def resident(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what))

given = benchmark.operands()
if sys.argv[1] == "ours":
    small = benchmark.Geometry((2, 2), (5, 5), (5, 5), (5, 5), True)
    benchmark.fuse_labels(given.semantic[:, :2, :2].copy(), None, None, small, threads=2)
    work = lambda: benchmark.fuse_labels(
        given.semantic, given.detail, given.flagged, benchmark.geometry(True), threads=benchmark.CORES
    )
else:
    tensors = [torch.from_numpy(array) for array in (given.semantic, given.detail, given.flagged)]
    benchmark.eager(*(tensor[..., :64].contiguous() for tensor in tensors))
    work = lambda: benchmark.eager(*tensors)
ctypes.CDLL(None).malloc_trim(0)  # what was freed must be taken anew
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak so far
before = resident("VmRSS")
result = work()
print(json.dumps((resident("VmHWM") - before) / 1e6))
"""


def extra_memory() -> list[Row]:
    """By how much the resident memory of a process grows at most while it fuses; on Linux."""
    if not sys.platform.startswith("linux"):
        return []
    ours, theirs = (
        float(json.loads(subprocess.run([sys.executable, "-c", _PROGRAM, who], check=True, capture_output=True).stdout))
        for who in ("ours", "torch")
    )
    note = f"{HEIGHT}x{WIDTH}, {CLASSES} classes, labels included; against torch eager"
    return [Row("fuse_labels/extra_memory", ours, "MB", theirs, theirs / ours, note=note)]


def _check(ours: npt.NDArray[np.uint8], theirs: npt.NDArray[np.integer], who: str) -> None:
    """Raise where labels differ at more than the ties that rounding makes, one pixel in 100,000."""
    differs = int((ours != theirs).sum())
    if differs > ours.size // 100_000:
        raise RuntimeError(f"{differs} of {ours.size} labels differ from those of {who}; nothing was timed")


if __name__ == "__main__":
    main()
