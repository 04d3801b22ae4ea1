"""Small trees of labelled frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

Picture = npt.NDArray[np.uint8]


@pytest.fixture
def write() -> Callable[[Path, Mapping[str, npt.NDArray[np.generic]]], None]:
    """Writes pictures under their paths below a folder."""

    def write(root: Path, pictures: Mapping[str, npt.NDArray[np.generic]]) -> None:
        for name, picture in pictures.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), picture)

    return write


@pytest.fixture
def noise() -> Callable[..., Picture]:
    """Random pictures of 33x47 pixels, each different: frames, or labels below `top` with `channels=0`."""
    rng = np.random.default_rng(5)

    def noise(channels: int = 3, top: int = 256) -> Picture:
        return rng.integers(0, top, (33, 47, channels) if channels else (33, 47), np.uint8)

    return noise


@pytest.fixture
def folder(tmp_path, write, noise):
    """A plain folder of four labelled frames of 11 classes, with what it holds."""
    root = tmp_path / "frames"
    frames, labels = [noise() for _ in range(4)], [noise(0, 11) for _ in range(4)]
    write(root / "images", {f"f{index:03d}.png": frame for index, frame in enumerate(frames)})
    write(root / "labels", {f"f{index:03d}.png": ids for index, ids in enumerate(labels)})
    return root, frames, labels
