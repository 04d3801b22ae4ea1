"""Pictures of bright discs on a dark ground, some of which touch, with the number of each one's disc."""

from __future__ import annotations

import cv2
import numpy as np

BACKGROUND, DISC = 0, 1


def discs(size, count, radii, seed):
    """Frame `uint8 [H, W, 3]` and numbers of discs `int32 [H, W]`, 0 where there is none; later ones lie on top."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 40, (*size, 3)).astype(np.uint8)
    numbers = np.zeros(size, np.int32)
    for number in range(1, count + 1):
        center, radius = (int(rng.integers(size[1])), int(rng.integers(size[0]))), int(rng.integers(*radii))
        mask = cv2.circle(np.zeros(size, np.uint8), center, radius, 1, -1) == 1
        numbers[mask] = number
        frame[mask] = rng.integers(120, 256, 3)
    return frame, numbers


class Discs:
    """Labelled frames with instances, as a training takes them."""

    def __init__(self, count, size=(64, 64), discs_each=4, radii=(6, 12)):
        self.names = [f"disc{index}" for index in range(count)]
        self.sizes = [size] * count
        self._drawn = [discs(size, discs_each, radii, seed) for seed in range(count)]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        frame, numbers = self._drawn[index]
        return frame, np.where(numbers > 0, DISC, BACKGROUND).astype(np.uint8)

    def instances(self, index, labels):
        return self._drawn[index][1]


def write(root, frames):
    """Write them as a folder of images and 16-bit instance maps."""
    for name in ("images", "instances"):
        (root / name).mkdir(parents=True)
    for index, name in enumerate(frames.names):
        cv2.imwrite(str(root / "images" / f"{name}.png"), frames[index][0])
        cv2.imwrite(str(root / "instances" / f"{name}.png"), frames.instances(index, None).astype(np.uint16))
