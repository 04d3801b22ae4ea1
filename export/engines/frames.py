"""Frames to calibrate and to compare engines on: a user's own, or rendered streets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import CAMVID
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.datasets import open_labelled
from errseg_rt.datasets.inputs import find_images
from errseg_rt.frames.reading import read_frame
from errseg_rt.scenes import StreetScene

Frame = npt.NDArray[np.uint8]

MOST_FRAMES = 32
_SCENES, _VIEWS = 4, 4  # rendered streets, and frames of each
_STEP = 30  # frames from one view to the next


@dataclass(frozen=True)
class Frames:
    """Frames, BGR `uint8 [H, W, 3]`, in two parts that have none in common where there is more than one.

    Attributes:
        calibration: Those whose activations set the ranges of int8.
        check: Those on which parity is measured.
        truths: True class ids of each frame of `check`, `uint8 [H, W]`; None where they are not known.
    """

    calibration: list[Frame]
    check: list[Frame]
    truths: list[Frame | None]


def load_frames(folder: Path | None, manifest: Manifest, size: tuple[int, int], most: int = MOST_FRAMES) -> Frames:
    """Read frames, spread evenly over a folder, or render them.

    Args:
        folder: Holds image files, or `images/` and `labels/`, or is a data set's root; None: rendered streets.
        manifest: Of the bundle.
        size: `(H, W)` of rendered frames.
        most: How many frames at most.

    Raises:
        DataError: The labels are not those of the bundle's classes.
        FrameError: There is no image, or one cannot be read.
    """
    samples: list[tuple[Frame, Frame | None]]
    if folder is None:
        # The truth of a rendered street is one of CamVid's classes.
        knows = manifest.classes.names == CAMVID.names
        scenes = [StreetScene(1000 + seed, *size) for seed in range(_SCENES)]
        views = [scene.frame(_STEP * view) for view in range(_VIEWS) for scene in scenes]
        samples = [(view.frame, view.labels if knows else None) for view in views[:most]]
    elif any((folder / name).is_dir() for name in ("labels", "gtFine", "annotations")):
        data = open_labelled(folder, manifest.classes)
        samples = [data[index] for index in _spread(len(data), most)]
    else:
        items = find_images([str(folder)]).items
        samples = [(read_frame(items[index].path), None) for index in _spread(len(items), most)]
    check = samples[1::2] or samples
    return Frames([frame for frame, _ in samples[::2]], [frame for frame, _ in check], [truth for _, truth in check])


def _spread(count: int, most: int) -> list[int]:
    """Numbers below `count`, `most` at most, evenly apart."""
    chosen = min(count, most)
    return [index * count // chosen for index in range(chosen)]
