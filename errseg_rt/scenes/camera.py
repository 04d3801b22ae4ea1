"""The dashboard camera: perspective projection of a street that may bend.

World axes in metres: x to the right, y up from the road, z along the street. Image axes in pixels: u right, v down,
with pixel centres at whole numbers (the convention of OpenCV).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAR = 0.4
"""Nothing closer than this many metres is drawn."""
FAR = 120.0
"""Nothing further than this many metres is drawn."""

_BEHIND = 15.0
"""The longest thing reaches this many metres forward from where it is counted."""

Point3 = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along the street.

    Attributes:
        focal: Focal length in pixels.
        center: Column of the vanishing point in pixels; yaw and steering move it.
        horizon: Row of the vanishing point in pixels; pitch moves it.
        eye: Height over the road in metres.
        x: Distance to the right of the road's middle in metres.
        z: Distance driven in metres.
        bend: Curvature of the street in 1/m: a point d metres ahead is shifted by bend * d**2 / 2 to the right.
    """

    focal: float
    center: float
    horizon: float
    eye: float
    x: float
    z: float
    bend: float

    def depth(self, z: float) -> float:
        """Metres ahead of the camera."""
        return z - self.z

    def shift(self, x: float, depth: float) -> float:
        """Sideways metres from the optical axis of a point at street offset `x`, `depth` metres ahead."""
        return x - self.x + 0.5 * self.bend * depth * depth

    def project(self, x: float, y: float, depth: float) -> tuple[float, float]:
        """Pixel (u, v) of a point `depth` metres ahead."""
        scale = self.focal / depth
        return self.center + scale * self.shift(x, depth), self.horizon + scale * (self.eye - y)

    def polygon(self, points: Sequence[Point3]) -> list[tuple[float, float]]:
        """Pixels of a world polygon cut at the near plane; empty if all of it lies behind that plane."""
        ahead = [(x, y, z - self.z) for x, y, z in points]
        if any(depth < NEAR for _, _, depth in ahead):
            ahead = _cut_near(ahead)
        return [self.project(x, y, depth) for x, y, depth in ahead]

    def slots(self, slot: float, moved: float = 0.0) -> range:
        """Numbers of the stretches of `slot` metres that may show; number 0 begins at z = `moved`."""
        origin = self.z - moved
        return range(math.floor((origin - _BEHIND) / slot), math.ceil((origin + FAR) / slot))

    def wall_depths(
        self,
        x: float,
        columns: NDArray[np.float64],  # [n]
    ) -> NDArray[np.float64]:
        """Depth in metres `[n]` at which each pixel column meets the wall that runs along the street at offset `x`.

        Columns that never meet it give infinity. The nearer root of bend/2 * d**2 - slope * d + (x - self.x) = 0.
        """
        slope = (columns - self.center) / self.focal
        offset = x - self.x
        root = np.sqrt(np.maximum(slope * slope - 2.0 * self.bend * offset, 0.0))
        denominator = slope + math.copysign(1.0, offset) * root
        meets = (slope * slope >= 2.0 * self.bend * offset) & (denominator * offset > 1e-9)
        return np.where(meets, 2.0 * offset / np.where(meets, denominator, 1.0), np.inf)


def _cut_near(points: list[Point3]) -> list[Point3]:
    """Sutherland-Hodgman against the near plane; points are (x, y, depth)."""
    kept: list[Point3] = []
    for (x0, y0, d0), (x1, y1, d1) in zip(points, points[1:] + points[:1], strict=True):
        if d0 >= NEAR:
            kept.append((x0, y0, d0))
        if (d0 >= NEAR) != (d1 >= NEAR):
            part = (NEAR - d0) / (d1 - d0)
            kept.append((x0 + part * (x1 - x0), y0 + part * (y1 - y0), NEAR))
    return kept
