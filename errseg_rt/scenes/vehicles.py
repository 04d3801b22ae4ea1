"""Cars, vans and buses: a side profile swept across the width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from errseg_rt.scenes.camera import NEAR
from errseg_rt.scenes.canvas import CAR, Color
from errseg_rt.scenes.painter import Painter, shaded

_GLASS: Color = (58, 50, 44)
_TYRE: Color = (26, 25, 25)

_Contour = tuple[tuple[float, float, bool], ...]
"""From tail to nose: (metres from the tail, metres up, whether the panel to the next point is glass)."""

_PROFILES: tuple[tuple[float, _Contour], ...] = (
    (
        1.72,
        (
            (0, 0.32, False), (0.03, 0.92, True), (0.4, 1.42, False), (2.2, 1.46, True), (3.0, 0.98, False),
            (3.9, 0.84, False), (4.0, 0.32, False),
        ),
    ),
    (
        1.78,
        (
            (0, 0.34, False), (0.02, 0.95, False), (0.7, 1.0, True), (1.3, 1.42, False), (2.6, 1.44, True),
            (3.4, 0.98, False), (4.5, 0.84, False), (4.6, 0.34, False),
        ),
    ),
    (
        1.95,
        (
            (0, 0.38, False), (0.02, 1.2, True), (0.12, 2.0, False), (3.4, 2.05, True), (4.2, 1.3, False),
            (4.9, 1.05, False), (5.0, 0.38, False),
        ),
    ),
    (
        2.45,
        (
            (0, 0.42, False), (0.02, 1.7, True), (0.08, 2.5, False), (0.1, 3.0, False), (10.3, 3.0, True),
            (10.45, 1.3, False), (10.5, 0.42, False),
        ),
    ),
)  # fmt: skip
"""Hatchback, saloon, van, bus: width in metres and contour."""

_PAINTS: tuple[Color, ...] = (
    (40, 38, 36), (150, 150, 150), (205, 205, 205), (110, 108, 104), (110, 60, 30), (30, 28, 140), (60, 85, 40),
    (45, 110, 160), (95, 70, 55), (70, 70, 70), (40, 30, 90),
)  # fmt: skip


@dataclass(frozen=True)
class Vehicle:
    """One vehicle's build and paint.

    Attributes:
        profile: Index of the build: hatchback, saloon, van, bus.
        paint: BGR of the body.
        size: Factor on all lengths.
        ahead: 1 if it drives the camera's way, -1 if it comes towards it.
    """

    profile: int
    paint: Color
    size: float
    ahead: int

    @property
    def length(self) -> float:
        """Metres from tail to nose."""
        return _PROFILES[self.profile][1][-1][0] * self.size

    @property
    def width(self) -> float:
        """Metres from side to side."""
        return _PROFILES[self.profile][0] * self.size

    def footprint(self, x: float, z: float) -> list[tuple[float, float, float]]:
        """World points of the ground under the vehicle whose near end is at `z`."""
        half, length = 0.5 * self.width + 0.05, self.length
        return [
            (x - half, 0.0, z - 0.1),
            (x + half, 0.0, z - 0.1),
            (x + half, 0.0, z + length),
            (x - half, 0.0, z + length),
        ]

    def draw(self, painter: Painter, x: float, z: float, instance: int) -> None:
        """Draws it in the middle of its lane at `x`, its near end at `z`."""
        if z + self.length < painter.camera.z + NEAR:
            return
        size, half = self.size, 0.5 * self.width
        contour = [(s * size, y * size, glass) for s, y, glass in _PROFILES[self.profile][1]]
        length, roof = self.length, max(y for _, y, _ in contour)
        belt = 1.0 * size if self.profile < 2 else 1.3 * size

        def at(side: float, s: float, y: float) -> tuple[float, float, float]:
            lean = max(y - belt, 0.0) * (0.32 if self.profile < 2 else 0.06)
            return (x + side * (half - lean), y, z + (s if self.ahead > 0 else length - s))

        lit = painter.look.lit
        panels = list(pairwise(contour))
        scale = painter.camera.focal / max(z - painter.camera.z, 1.0)
        for (s0, y0, glass), (s1, y1, _) in reversed(panels) if self.ahead > 0 else panels:
            light = 1.12 if abs(s1 - s0) > abs(y1 - y0) else lit(0.0)
            corners = (at(-1, s0, y0), at(1, s0, y0), at(1, s1, y1), at(-1, s1, y1))
            painter.face(corners, shaded(self.paint, light), CAR, instance)
            if glass:
                lower, upper = (0.12, 0.9) if y1 > y0 else (0.1, 0.9)
                pane = [
                    at(side, s0 + part * (s1 - s0), y0 + part * (y1 - y0))
                    for side, part in ((-0.88, lower), (0.88, lower), (0.84, upper), (-0.84, upper))
                ]
                painter.face(pane, shaded(_GLASS, 0.7 + 0.7 * lit(0.0)), CAR, instance)
        self._end(painter, x, z, instance)
        away = x - painter.camera.x + 0.5 * painter.camera.bend * max(z - painter.camera.z, 0.0) ** 2
        if abs(away) <= half:
            return
        side = -math.copysign(1.0, away)
        light = lit(side)
        painter.face([at(side, s, y) for s, y, _ in contour], shaded(self.paint, light), CAR, instance)
        if scale < 10:
            return
        first = next(s for s, y, _ in contour if y > belt)
        last = max(s for s, y, _ in contour if y > belt)
        count = 2 if length < 6 else 7
        tail, nose = (first, last) if self.profile < 2 else (first + 0.3, last + 0.2)
        if self.profile == 2:
            tail = last - 0.6
        for i in range(count):
            left, right = (tail + (nose - tail) * (i + part) / count for part in (0.04, 0.96))
            low_left = left - (0.25 * size if i == 0 and self.profile < 2 else 0.0)
            low_right = right + (0.45 * size if i == count - 1 and self.profile < 3 else 0.0)
            top, low = roof - 0.09 * size if self.profile < 3 else 2.35 * size, belt + 0.02
            pane = [at(side, low_left, low), at(side, low_right, low), at(side, right, top), at(side, left, top)]
            painter.face(pane, shaded(_GLASS, 0.6 + light), CAR, instance)
        for s in (0.17 * length, 0.8 * length):
            for radius, color in ((0.33 * size, _TYRE), (0.2 * size, (120.0, 120.0, 120.0))):
                rim = [(s + radius * c, 0.31 * size + radius * d) for c, d in _RIM]
                painter.face([at(side, a, b) for a, b in rim], color, CAR, instance)

    def _end(self, painter: Painter, x: float, z: float, instance: int) -> None:
        """Lights, plate, bumper and tyres of the near end."""
        card = painter.card(x, z)
        if card is None:
            return
        half, size = 0.5 * self.width, self.size
        for side in (-1, 1):
            card.box(side * half * 0.93, 0.0, side * half * 0.6, 0.4 * size, _TYRE, CAR, instance)
        card.box(-half, 0.22 * size, half, 0.48 * size, shaded(self.paint, 0.42), CAR, instance)
        if card.scale < 7:
            return
        lamp: Color = (35, 30, 190) if self.ahead > 0 else (225, 235, 240)
        base = 0.68 * size
        for side in (-1, 1):
            card.box(side * half * 0.97, base, side * half * 0.68, base + 0.16 * size, lamp, CAR, instance)
        plate: Color = (60, 190, 215) if self.ahead > 0 else (225, 225, 225)
        card.box(-0.26, 0.5 * size, 0.26, 0.62 * size, plate, CAR, instance)
        if self.ahead < 0 and self.profile < 2:
            card.box(-half * 0.55, 0.64 * size, half * 0.55, 0.74 * size, (30, 30, 30), CAR, instance)


_RIM = tuple((math.cos(i * math.pi / 6), math.sin(i * math.pi / 6)) for i in range(12))


def random_vehicle(rng: np.random.Generator, ahead: int, parked: bool) -> Vehicle:
    """Mostly cars, some vans, few buses; no parked buses."""
    return Vehicle(
        profile=int(rng.choice(4, p=(0.55, 0.37, 0.08, 0.0) if parked else (0.47, 0.3, 0.16, 0.07))),
        paint=_PAINTS[int(rng.integers(len(_PAINTS)))],
        size=float(rng.uniform(0.95, 1.08)),
        ahead=ahead,
    )
