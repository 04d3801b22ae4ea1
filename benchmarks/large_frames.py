"""What do frames cost that are larger than the network knows, and what do its labels gain from reducing them?

    python -m benchmarks.large_frames --frames camvid/val cityscapes

Each frame is segmented at its own size and at several limits (`InputSpec.work_pixels`). Rendered streets have exact
labels at every size. Labelled frames that `--frames` names (a plain folder, or Cityscapes, whose classes are merged
into the bundle's) are enlarged: so a camera with more pixels behind the same lens shows the street, but for its detail.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.report import Row, finish
from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.classes import CITYSCAPES
from errseg_rt.datasets import CityscapesData, LabelledFrames, Sample, open_labelled
from errseg_rt.datasets.merge import Merge
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.scenes import StreetScene

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((1080, 1920), (1440, 2560), (2160, 3840), (3000, 4000))
LIMITS = (0, 921_600, 2_100_225, 2_800_000, 4_000_000)  # 0: none
FIRST_SEED = 20_000  # of streets that training did not draw
TIME = 20  # of a street, in frames: its traffic is under way

_PROGRAM = """
import re, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
height, width, limit = map(int, sys.argv[1:])
frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
bundle = Bundle.open("camvid")
spec = replace(bundle.manifest.input, work_pixels=limit)
bundle = replace(bundle, manifest=replace(bundle.manifest, input=spec))
with Runtime(bundle, threshold=0.01) as runtime:
    result = runtime.segment(frame)
    assert result.flagged.any()
# KiB; what getrusage tells of a process begins with the size of the one that started it.
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", nargs="*", type=Path, default=[], help="folders of labelled frames")
    parser.add_argument("--count", type=int, default=10, help="streets, and at most as many frames of each folder")
    args, rest = parser.parse_known_args()
    rows: list[Row] = []
    for size in SIZES:
        where = f"{size[0]}x{size[1]}"
        rows += compared(where, size, streets(size, args.count))
        rows += memory(where, size)
        for folder in args.frames:
            rows += compared(f"{where}/{folder.name}", size, enlarged(labelled(folder), size, args.count))
    finish(rows, "large_frames", rest)


def limited(pixels: int) -> Bundle:
    """The embedded bundle with this limit in place of its own; 0: none."""
    bundle = Bundle.open("camvid")
    spec = replace(bundle.manifest.input, work_pixels=pixels)
    return replace(bundle, manifest=replace(bundle.manifest, input=spec))


def limits(size: Size) -> list[int]:
    """Those that a frame of this size exceeds, after "none"."""
    return [limit for limit in LIMITS if limit < size[0] * size[1]]


def streets(size: Size, count: int) -> Iterator[Sample]:
    """Rendered streets."""
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        frame = StreetScene(seed, *size).frame(TIME)
        yield frame.frame, frame.labels


def labelled(folder: Path) -> LabelledFrames:
    """Frames of a plain folder or of Cityscapes."""
    if not (folder / "leftImg8bit").is_dir():
        return open_labelled(folder, Bundle.open("camvid").manifest.classes)
    split = "val" if (folder / "leftImg8bit" / "val").is_dir() else "train"
    return _Merged(CityscapesData(folder, split))


def enlarged(frames: LabelledFrames, size: Size, count: int) -> Iterator[Sample]:
    """Frames from all over a data set, in their own aspect, with as many pixels as a frame of this size has."""
    for index in range(0, len(frames), -(-len(frames) // count)):
        frame, labels = frames[index]
        scale = math.sqrt(size[0] * size[1] / labels.size)
        to = round(labels.shape[1] * scale), round(labels.shape[0] * scale)
        larger = cv2.resize(frame, to, interpolation=cv2.INTER_CUBIC)
        truth = cv2.resize(labels, to, interpolation=cv2.INTER_NEAREST_EXACT)
        yield np.asarray(larger, np.uint8), np.asarray(truth, np.uint8)


def compared(where: str, size: Size, samples: Iterable[Sample]) -> list[Row]:
    """Labels, flagged pixels and time at each limit, in turn on the same frames; the baseline is no limit."""
    tried = limits(size)
    runtimes = {limit: Runtime(limited(limit)) for limit in tried}
    scores = {limit: ConfusionMatrix(len(runtimes[0].manifest.classes)) for limit in tried}
    flagged: dict[int, list[float]] = {limit: [] for limit in tried}
    times: dict[int, list[float]] = {limit: [] for limit in tried}
    for number, (frame, truth) in enumerate(samples):
        for limit, runtime in runtimes.items():
            if number == 0:
                runtime.segment(frame)  # compiles, and takes memory for the first time
            result = runtime.segment(frame)
            scores[limit].add(truth, result.labels)
            flagged[limit].append(100 * result.flagged_share)
            times[limit].append(result.milliseconds)
    rows = []
    for limit in tried:
        name, note = f"{where}/{named(limit)}", f"{len(times[0])} frames"
        ratios = np.array(times[0]) / times[limit]
        low, middle, high = (float(q) for q in np.quantile(ratios, (0.1, 0.5, 0.9)))
        took, free = float(np.median(times[limit])), float(np.median(times[0]))
        miou, plain = 100 * scores[limit].miou_of_truth(), 100 * scores[0].miou_of_truth()
        share, whole = float(np.mean(flagged[limit])), float(np.mean(flagged[0]))
        rows += [
            Row(f"large_frames/miou@{name}", miou, "%", plain, note=note),
            Row(f"large_frames/flagged@{name}", share, "%", whole, note=note),
            Row(f"large_frames/time@{name}", took, "ms", free, middle, (low, middle, high), note),
        ]
    return _shown(rows)


def memory(where: str, size: Size) -> list[Row]:
    """Peak resident memory of a fresh process that segments one frame of noise, at each limit."""
    peaks = {limit: _peak(size, limit) for limit in limits(size)}
    return _shown(
        [
            Row(f"large_frames/memory@{where}/{named(limit)}", peak, "MB", peaks[0], peaks[0] / peak)
            for limit, peak in peaks.items()
        ]
    )


def named(limit: int) -> str:
    """A limit in the name of a row."""
    return f"up_to_{limit}" if limit else "no_limit"


def _peak(size: Size, limit: int) -> float:
    command = [sys.executable, "-c", _PROGRAM, *map(str, (*size, limit))]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024 / 1e6


def _shown(rows: list[Row]) -> list[Row]:
    """The same rows, shown while the rest is measured."""
    for row in rows:
        print(f"{row.name}: {row.value:.4g} {row.unit}", flush=True)
    return rows


class _Merged:
    """Frames of Cityscapes with the classes of the bundle that merge them, as its recipe has it."""

    def __init__(self, frames: CityscapesData) -> None:
        self._frames, self.names = frames, frames.names
        self._ids = Merge.open("camvid", CITYSCAPES).to_coarse

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        frame, labels = self._frames[index]
        return frame, self._ids[labels]


if __name__ == "__main__":
    main()
