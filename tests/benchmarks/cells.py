"""Cells whose number is known, a runtime that sees them, and a folder of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.kernels.geometry import Geometry

CLASSES = ClassSet(("background", "cell"), ((0, 0, 0), (255, 0, 0)))
SIZE = (64, 80)


def cells(seed: int) -> np.ndarray:
    """Three pairs of cells that touch."""
    index, rng = np.zeros(SIZE, np.uint16), np.random.default_rng(seed)
    for pair, (x, y) in enumerate(((14, 14), (55, 14), (30, 46))):
        x, y = x + int(rng.integers(0, 4)), y + int(rng.integers(0, 4))
        cv2.circle(index, (x, y), 9, 2 * pair + 1, -1)
        cv2.circle(index, (x + 16, y), 9, 2 * pair + 2, -1)
    return index


class Seer:
    """A runtime that sees the instances in the blue of a frame, and says that half of them may be wrong."""

    manifest = SimpleNamespace(classes=CLASSES, things=(1,), name="seer")

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Seer:
        return self

    def __exit__(self, *_: object) -> None: ...

    def segment(self, frame: np.ndarray, *, confidence: bool) -> Segmentation:
        index = frame[..., 0].astype(np.int32)
        errors = np.full((16, 20), 0.25, np.float32)
        return Segmentation(
            labels=(index > 0).astype(np.uint8),
            error_probability=errors,
            flagged=errors > 1,
            classes=CLASSES,
            geometry=Geometry((16, 20), SIZE, SIZE, SIZE, False),
            timings={},
            confidence=np.ones(SIZE, np.float32),
            instances=Instances.of(index, np.ones(6, int), np.ones(6), CLASSES, np.full(SIZE, 0.25, np.float32)),
        )


def write_cells(folder: Path, count: int = 11) -> Path:
    """Frames and instances of cells."""
    for name in ("images", "instances"):
        (folder / name).mkdir(parents=True)
    for seed in range(count):
        index = cells(seed)
        cv2.imwrite(str(folder / f"images/f{seed}.png"), np.dstack([index.astype(np.uint8)] * 3))
        cv2.imwrite(str(folder / f"instances/f{seed}.png"), index)
    return folder
