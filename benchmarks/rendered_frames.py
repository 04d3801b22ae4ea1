"""Rendered streets as a folder of data: images, labels and instances, of streets that training never draws.

    python -m benchmarks.rendered_frames -o streets --frames 60

`evaluate`, `train --data` and the benchmarks of instances read the folder. Each frame is of a street of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.scenes import StreetScene
from errseg_rt.system.progress import track

FIRST_SEED = 10_000
SHOWN = 30  # of each street: by then movers have left where they began


def write_frames(folder: Path, count: int, height: int, width: int, first_seed: int = FIRST_SEED) -> None:
    """Write `count` frames of `height` x `width` pixels, as PNG under the number of their street."""
    for seed in track(range(first_seed, first_seed + count), "render", count):
        view = StreetScene(seed, height, width).frame(SHOWN)
        for kind, picture in (("images", view.frame), ("labels", view.labels), ("instances", view.instances)):
            _write(folder / kind / f"{seed}.png", picture)


def _write(path: Path, picture: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise SystemExit(f"{path}: could not be written")


def main() -> None:
    """Render and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    args = parser.parse_args()
    write_frames(args.out, args.frames, *args.size, args.first_seed)


if __name__ == "__main__":
    main()
