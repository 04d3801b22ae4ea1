"""A frame, its true instances, those that a bundle finds, and its error map, side by side.

    python -m benchmarks.instance_picture nuclei --data nuclei/val --name train_0406 -o docs/instances/touching.jpg

Above, the frame and what is true; below, what is found, and where errors are expected.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from errseg_rt.datasets import open_labelled
from errseg_rt.frames.instances import Instances
from errseg_rt.runtime import Runtime
from errseg_rt.video.drawing import drawn

WIDTH = 480  # pixels of a panel


def main() -> None:
    """Segment and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and instances/")
    parser.add_argument("--name", required=True, help="of the frame")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    with Runtime(args.bundle) as runtime:
        manifest = runtime.manifest
        frames = open_labelled(args.data, manifest.classes, things=manifest.things)
        index = [Path(name).stem for name in frames.names].index(args.name)
        frame, labels = frames[index]
        found = runtime.segment(frame)
        true = frames.instances(index, labels)
        known = Instances.of(true.map, true.classes, np.ones(len(true)), manifest.classes)
        truth = replace(found, labels=labels, instances=known)
    panels = [frame, drawn("overlay", frame, truth), drawn("overlay", frame, found), drawn("errors", frame, found)]
    size = (WIDTH, round(WIDTH * frame.shape[0] / frame.shape[1]))
    large = [cv2.resize(panel, size, interpolation=cv2.INTER_CUBIC) for panel in panels]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.out), np.vstack([np.hstack(large[:2]), np.hstack(large[2:])])):
        raise SystemExit(f"{args.out}: could not be written")


if __name__ == "__main__":
    main()
