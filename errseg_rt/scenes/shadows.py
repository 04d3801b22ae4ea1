"""Shadows on the ground."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.camera import Camera
from errseg_rt.scenes.painter import Painter
from errseg_rt.scenes.traffic import Placed
from errseg_rt.scenes.vehicles import Vehicle

_SHADOW_DEPTH = 60.0
"""Things further than this many metres cast no shadow that would show."""
_REACH = 3.5
"""Metres that a shadow reaches to the side."""


def paint_shadows(painter: Painter, movers: list[Placed], houses: list[tuple[float, float]], edge: float) -> None:
    """Darkens the ground, the only thing drawn so far.

    Args:
        painter: Where it draws.
        movers: What casts a shadow on the road.
        houses: Where houses on the sunny side begin and end, in metres along the street.
        edge: Metres from the road's middle to the houses.
    """
    canvas, camera, look = painter.canvas, painter.camera, painter.look
    mask = np.zeros(canvas.tags.shape, np.uint8)
    reach = -_REACH * look.sun_side
    if look.sun > 0.5:
        side = look.sun_side
        for z0, z1 in houses:
            x0, x1 = side * edge, side * edge + reach * 1.3
            _darken(mask, camera, [(x0, 0, z0), (x1, 0, z0 + 2), (x1, 0, z1 + 2), (x0, 0, z1)], 110)
    for placed in movers:
        thing = placed.mover.thing
        x, z = placed.mover.x, placed.z
        if z - camera.z > _SHADOW_DEPTH:
            continue
        if isinstance(thing, Vehicle):
            cast = [
                (a + 0.5 * reach * look.sun, b, c + 0.9) if a * reach > x * reach else (a, b, c)
                for a, b, c in thing.footprint(x, z)
            ]
            _darken(mask, camera, cast, 90 + int(40 * look.sun))
            _darken(mask, camera, thing.footprint(x, z), 185)
        else:
            _darken(mask, camera, [(x - 0.2, 0, z), (x + 0.2, 0, z), (x + 0.2 + reach * look.sun, 0, z + 0.6)], 70)
    top = max(int(camera.horizon), 0)
    if top >= canvas.height:
        return
    dark = cv2.GaussianBlur(mask[top:], (0, 0), max(canvas.height / 300.0, 0.5))
    light = 1.0 - np.asarray(dark, np.float32) / 255.0
    ground = canvas.color[top:]
    ground[:] = cv2.blendLinear(ground, np.zeros_like(ground), light, 1.0 - light)


def _darken(mask: NDArray[np.uint8], camera: Camera, points: list[tuple[float, float, float]], depth: int) -> None:
    """Adds a shadow on the ground to `mask`."""
    pixels = np.asarray(camera.polygon(points))
    if len(pixels) >= 3:
        cv2.fillPoly(mask, [np.clip(np.rint(pixels), -30000, 30000).astype(np.int32)], (depth,))
