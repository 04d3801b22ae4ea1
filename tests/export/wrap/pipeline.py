"""The plain way from a frame to labels: OpenCV, NumPy and the untouched file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.runtime import Runtime
from tests.export.wrap.networks import run

Labels = npt.NDArray[np.uint8]


def normalised(
    frame: npt.NDArray[np.uint8], mean=0.5, std=0.5, scale=1 / 255, color="rgb", size=None, way=cv2.INTER_LINEAR
) -> np.ndarray:
    """`[1, 3, H, W]` of a frame in BGR; mean and std in the order of the planes."""
    if size:
        frame = cv2.resize(frame, size[::-1], interpolation=way)
    planes = frame[..., ::-1] if color == "rgb" else frame
    return ((planes * scale - np.asarray(mean)) / np.asarray(std)).transpose(2, 0, 1)[None].astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def labels_of(probabilities: np.ndarray, size: tuple[int, int]) -> Labels:
    """Labels of a frame's size from `[K, h, w]`."""
    maps = [cv2.resize(each.astype(np.float64), size[::-1], interpolation=cv2.INTER_LINEAR) for each in probabilities]
    return np.argmax(maps, axis=0).astype(np.uint8)


def segmented(bundle: Path, frame: npt.NDArray[np.uint8]):
    with Runtime(Bundle.open(bundle), threads=1) as runtime:
        return runtime.segment(frame)


__all__ = ["labels_of", "normalised", "run", "segmented", "softmax"]
