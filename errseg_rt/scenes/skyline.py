"""Roofs and tree tops at the end of the street."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.camera import FAR, Camera
from errseg_rt.scenes.canvas import BUILDING, TREE, Canvas, tag


def random_skyline(rng: np.random.Generator) -> NDArray[np.float32]:
    """Far roofs and tree tops: `float32 [2, 512]`, metres high at `FAR`, and whether it is a tree."""
    heights, trees = np.zeros(512, np.float32), np.zeros(512, np.float32)
    start = 0
    while start < 512:
        stop = start + int(rng.integers(3, 14))
        is_tree = bool(rng.random() < 0.5)
        level = rng.uniform(3, 11)
        ragged = rng.normal(0, 1.0, stop - start) if is_tree else np.zeros(stop - start)
        heights[start:stop] = (level + ragged)[: 512 - start]
        trees[start:stop] = is_tree
        start = stop
    return np.stack([heights, trees])


def paint_skyline(
    canvas: Canvas,
    camera: Camera,
    skyline: NDArray[np.float32],  # [2, 512]
) -> None:
    """Draws the skyline, which stays with the vanishing point."""
    slopes = (np.arange(canvas.width) - camera.center) / camera.focal
    heights, trees = skyline[:, (slopes * 160.0 + 256.0).astype(int) % 512]
    tops = camera.horizon - heights * camera.focal / FAR
    top = max(int(tops.min()), 0)
    rows = np.arange(top, max(min(int(camera.horizon) + 2, canvas.height), top))
    mask = rows[:, None] >= tops[None]
    shade = np.where(trees[:, None] > 0, (60, 75, 70), (105, 112, 120)) * (0.8 + 0.05 * heights[:, None] % 0.4)
    color = np.broadcast_to(shade.astype(np.uint8)[None], (len(rows), canvas.width, 3))
    tags = np.where(trees > 0, tag(TREE, FAR), tag(BUILDING, FAR)).astype(np.int32)
    canvas.paint(top, 0, mask, color, tags)
