"""A retina, drawn: what a fundus camera sees, and which pixels are vessels. For tests and pictures.

Not a model of an eye: a dark red disc, a bright spot where the vessels come from, and vessels that branch, so that a
network that knows photographs finds something to be right and wrong about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Retina:
    """One picture.

    Attributes:
        frame: BGR `uint8 [H, W, 3]`.
        vessels: `bool [H, W]`.
        inside: The round field of view, `bool [H, W]`.
    """

    frame: npt.NDArray[np.uint8]
    vessels: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]


def draw(seed: int, size: int = 512) -> Retina:
    """Draw one.

    Args:
        seed: Another eye for each.
        size: Side of the picture, in pixels.
    """
    rng = np.random.default_rng(seed)
    depth = np.zeros((size, size), np.float32)  # of blood
    vessels = np.zeros((size, size), np.uint8)
    disc = size * np.array([0.5 + rng.choice([-1, 1]) * rng.uniform(0.2, 0.26), rng.uniform(0.45, 0.55)])
    for start in range(8):
        angle = math.tau * (start + rng.uniform(-0.3, 0.3)) / 8
        _grow(depth, vessels, rng, disc, angle, width=size / 512 * rng.uniform(4, 7))
    rows, cols = np.mgrid[:size, :size].astype(np.float32)
    radius = np.hypot(rows - size / 2, cols - size / 2)
    inside = radius < 0.485 * size
    near_disc = np.exp(-((cols - disc[0]) ** 2 + (rows - disc[1]) ** 2) / (2 * (0.045 * size) ** 2))
    cloud = cv2.resize(rng.standard_normal((9, 9)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    light = (1.05 - 0.5 * (radius / size) ** 2 + 0.05 * cloud)[..., None]
    colors = np.array([38.0, 82.0, 168.0]) * light + near_disc[..., None] * np.array([70.0, 100.0, 60.0])
    colors *= 1 - depth[..., None] * np.array([0.35, 0.45, 0.22])
    colors += rng.normal(0, 2.5, (size, size, 3))
    frame = np.where(inside[..., None], cv2.GaussianBlur(colors, (0, 0), 0.7), 2).clip(0, 255).astype(np.uint8)
    return Retina(frame, (vessels > 0) & inside, inside)


def _grow(
    depth: npt.NDArray[np.float32],
    vessels: npt.NDArray[np.uint8],
    rng: np.random.Generator,
    at: npt.NDArray[np.float64],
    angle: float,
    width: float,
) -> None:
    """A vessel that bends, thins, and branches in two until it is too thin to see."""
    size = len(depth)
    bend = rng.normal(0, 0.02)
    for _ in range(int(rng.uniform(0.12, 0.3) * size / 4)):
        bend = 0.9 * bend + rng.normal(0, 0.02)
        angle += bend
        to = at + 4 * np.array([math.cos(angle), math.sin(angle)])
        _line(depth, at, to, width, min(1.0, 0.35 + width / 8))
        _line(vessels, at, to, width, 1)
        at, width = to, width * 0.996
        if not (0 <= at[0] < size and 0 <= at[1] < size):
            return
    thin = width * rng.uniform(0.55, 0.75)
    if thin > size / 512 * 0.8:
        side = rng.choice([-1, 1])
        _grow(depth, vessels, rng, at, angle + side * rng.uniform(0.4, 0.9), thin)
        _grow(depth, vessels, rng, at, angle - side * rng.uniform(0.1, 0.4), width * 0.85)


def _line(
    canvas: npt.NDArray[np.generic],
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    width: float,
    value: float,
) -> None:
    """A line with ends at fractions of pixels."""
    first, last = ((round(16 * float(x)), round(16 * float(y))) for x, y in (start, end))
    cv2.line(canvas, first, last, value, max(1, round(width)), cv2.LINE_8, 4)
