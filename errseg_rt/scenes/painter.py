"""Shapes of the world drawn through the camera onto the canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from errseg_rt.scenes.camera import FAR, NEAR, Camera, Point3
from errseg_rt.scenes.canvas import Canvas, Color
from errseg_rt.scenes.look import Look

_CIRCLE = tuple((math.cos(i * math.pi / 7), math.sin(i * math.pi / 7)) for i in range(14))
_WIDEST = 8.0
"""Nothing on a card reaches further than this many metres to the side of its foot."""


@dataclass(frozen=True)
class Painter:
    """Draws metres where the canvas wants pixels."""

    canvas: Canvas
    camera: Camera
    look: Look

    def face(self, points: Sequence[Point3], color: Color, label: int, instance: int = 0) -> None:
        """Fills a flat polygon of world points."""
        depth = min(z for _, _, z in points) - self.camera.z
        if depth < FAR:
            self.canvas.polygon(self.camera.polygon(points), color, label, max(depth, 0.0), instance)

    def card(self, x: float, z: float) -> Card | None:
        """An upright plane across the street at (x, z); None out of sight."""
        depth = z - self.camera.z
        if not NEAR < depth < FAR:
            return None
        u, v = self.camera.project(x, 0.0, depth)
        scale = self.camera.focal / depth
        if not -_WIDEST * scale < u < self.canvas.width + _WIDEST * scale:
            return None
        return Card(self.canvas, u, v, scale, depth)


@dataclass(frozen=True)
class Card:
    """An upright plane that faces the camera; points on it are (metres right, metres up) from its foot.

    Attributes:
        canvas: Where it draws.
        u: Column of the foot in pixels.
        v: Row of the foot in pixels.
        scale: Pixels per metre.
        depth: Metres ahead of the camera.
    """

    canvas: Canvas
    u: float
    v: float
    scale: float
    depth: float

    def shape(self, points: Sequence[tuple[float, float]], color: Color, label: int, instance: int = 0) -> None:
        """Fills a polygon."""
        pixels = [(self.u + self.scale * x, self.v - self.scale * y) for x, y in points]
        self.canvas.polygon(pixels, color, label, self.depth, instance)

    def box(
        self, left: float, low: float, right: float, high: float, color: Color, label: int, instance: int = 0
    ) -> None:
        """Fills a rectangle."""
        self.shape(((left, low), (right, low), (right, high), (left, high)), color, label, instance)

    def disc(self, x: float, y: float, wide: float, high: float, color: Color, label: int, instance: int = 0) -> None:
        """Fills an ellipse with these half axes in metres."""
        self.shape([(x + wide * c, y + high * s) for c, s in _CIRCLE], color, label, instance)

    def limb(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        width: float,
        color: Color,
        label: int,
        instance: int = 0,
    ) -> None:
        """Fills a bar of this width in metres between two points."""
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        across, along = 0.5 * width * (y1 - y0) / length, 0.5 * width * (x1 - x0) / length
        self.shape(
            (
                (x0 - across, y0 + along),
                (x1 - across, y1 + along),
                (x1 + across, y1 - along),
                (x0 + across, y0 - along),
            ),
            color,
            label,
            instance,
        )


def shaded(color: Color, factor: float) -> Color:
    """The colour under more or less light."""
    return (min(color[0] * factor, 255.0), min(color[1] * factor, 255.0), min(color[2] * factor, 255.0))
