"""The ground: road with markings, kerbs, tiled pavement, grass."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.camera import FAR
from errseg_rt.scenes.canvas import PAVEMENT, ROAD, SKY, TREE, tag_depths
from errseg_rt.scenes.painter import Painter
from errseg_rt.scenes.textures import grain

_REACH = 16.0
_PERIOD = 12.0
_BANDS = ((0.0, 0.0), (6.0, 0.15), (13.0, 0.6), (26.0, 2.0), (50.0, 6.0), (90.0, 12.0))
"""(from this depth on in metres, blur along the street in metres): what a pixel covers at that depth."""


@dataclass(frozen=True)
class Ground:
    """Ground of one street.

    Attributes:
        road: Half the width of the road in metres.
        pavement: Width of a pavement in metres.
        density: Pixels per metre of the pictures.
        strips: The street from above, one per band of `_BANDS`, BGR
            `uint8 [_PERIOD * density, 2 * _REACH * density, 3]`.
        grass: BGR `uint8 [256, 256, 3]`, tiles.
    """

    road: float
    pavement: float
    density: int
    strips: tuple[NDArray[np.uint8], ...]
    grass: NDArray[np.uint8]

    def paint(
        self,
        painter: Painter,
        grassy: NDArray[np.bool_],  # [2, n], left and right
        lot: float,
        first_lot: int,
    ) -> None:
        """Fills everything below the horizon.

        Args:
            painter: Where it draws.
            grassy: For the lots from number `first_lot` on, whether grass lies beyond the pavement.
            lot: Metres per lot.
            first_lot: Number of the first lot in `grassy`.
        """
        canvas, camera = painter.canvas, painter.camera
        top = min(max(int(np.floor(camera.horizon)) + 1, 0), canvas.height)
        if top >= canvas.height:
            return
        rows = np.arange(top, canvas.height)
        depths = camera.eye * camera.focal / np.maximum(rows - camera.horizon, 1e-3)
        slopes = ((np.arange(canvas.width) - camera.center) / camera.focal).astype(np.float32)
        bend = 0.5 * camera.bend * np.minimum(depths, 200.0) ** 2
        x = slopes[None] * depths[:, None].astype(np.float32)
        x += (camera.x - bend[:, None]).astype(np.float32)
        z = depths + camera.z
        color = canvas.color[top:]
        along = np.mod(z, _PERIOD).astype(np.float32) * self.density
        limits = [from_depth for from_depth, _ in _BANDS] + [np.inf]
        for strip, start, stop in zip(self.strips, limits, limits[1:], strict=False):
            band = np.flatnonzero((depths >= start) & (depths < stop))
            if not len(band):
                continue
            part = np.s_[band[0] : band[-1] + 1]
            us = np.clip((x[part] + _REACH) * self.density, 0, strip.shape[1] - 1)
            vs = np.ascontiguousarray(np.broadcast_to(along[part, None], us.shape))
            color[part] = cv2.remap(strip, us, vs, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        lots = np.clip(np.floor(z / lot).astype(np.int64) - first_lot, 0, grassy.shape[1] - 1)
        edge = self.road + self.pavement
        green = (x < -edge) & grassy[0][lots][:, None] | (x > edge) & grassy[1][lots][:, None]
        labels = np.where(np.abs(x) <= self.road, np.int32(ROAD), np.int32(PAVEMENT))
        if green.any():
            us = np.mod(x * 40.0, 255.0)
            vs = np.ascontiguousarray(np.broadcast_to(np.mod(z * 40.0, 255.0).astype(np.float32)[:, None], us.shape))
            lawn = np.asarray(cv2.remap(self.grass, us, vs, cv2.INTER_LINEAR), np.uint8)
            cv2.copyTo(lawn, green.view(np.uint8), color)
            labels[green] = TREE
        canvas.tags[top:] = labels | tag_depths(SKY, np.minimum(depths, FAR))[:, None]


def random_ground(rng: np.random.Generator, road: float, pavement: float, density: int) -> Ground:
    """Lays asphalt, markings and slabs."""
    h, w = round(_PERIOD * density), round(2 * _REACH * density)
    x = (np.arange(w, dtype=np.float32) + 0.5) / density - _REACH
    z = (np.arange(h, dtype=np.float32) + 0.5) / density
    offset = np.abs(x)
    asphalt = rng.uniform(62, 112)
    image = np.empty((h, w, 3), np.float32)
    image[:] = asphalt * rng.uniform(0.96, 1.04, 3)
    worn = 1.0 + 0.05 * np.cos(2 * np.pi * (offset - 0.25 * road) / (0.5 * road))
    patches = 1.0 + 0.05 * grain(rng, h, w, density * 2) + 0.03 * grain(rng, h, w, density // 2)
    image *= (patches * worn[None])[..., None]
    image += (7.0 * rng.standard_normal((h, w), np.float32))[..., None]

    paint = np.zeros((h, w), bool)
    dash = rng.choice((3.0, 6.0))
    paint |= (offset < 0.07)[None] & (np.mod(z, dash) < 0.55 * dash)[:, None]
    paint |= (np.abs(offset - 0.5 * road) < 0.05)[None] & (np.mod(z, 6.0) < 2.0)[:, None] & bool(rng.random() < 0.3)
    paint &= grain(rng, h, w, max(2, density // 8)) > -1.6
    image[paint] = rng.uniform(185, 235)
    if rng.random() < 0.6:
        yellow = (np.abs(offset - road + 0.35) < 0.05) | (np.abs(offset - road + 0.6) < 0.05)
        image[:, yellow] = image[:, yellow] * 0.35 + np.array((60, 140, 150)) * 0.65

    slab = offset > road
    tone = rng.uniform(0.95, 1.45) * asphalt
    tile = rng.choice((0.6, 0.75, 1.0))
    pieces = 1.0 + 0.06 * rng.standard_normal((int(_PERIOD / tile) + 1, int(_REACH / tile) + 2), np.float32)
    rows, cols = (z / tile).astype(int), (offset / tile).astype(int)
    flags = pieces[rows[:, None], cols] * tone * (1.0 + 0.04 * rng.standard_normal((h, w), np.float32))
    joint = (np.mod(z, tile) < 0.04)[:, None] | (np.mod(offset, tile) < 0.04)[None]
    flags = np.where(joint, flags * 0.72, flags)
    hue = rng.uniform(0.94, 1.06, 3)
    image[:, slab] = (flags[..., None] * hue)[:, slab]
    kerb = (offset > road) & (offset < road + 0.16)
    image[:, kerb] = np.minimum(image[:, kerb] * 1.25, 230)
    gutter = (offset > road - 0.12) & (offset <= road)
    image[:, gutter] *= 0.7
    lawn = np.asarray(rng.uniform((25, 75, 50), (55, 115, 95)), np.float32)
    blades = 1.0 + 0.16 * grain(rng, 256, 256, 3) + 0.1 * grain(rng, 256, 256, 30)
    street = np.clip(image, 0, 255).astype(np.uint8)
    return Ground(
        road=road,
        pavement=pavement,
        density=density,
        strips=tuple(_smear(street, round(length * density)) for _, length in _BANDS),
        grass=np.clip(lawn * blades[..., None], 0, 255).astype(np.uint8),
    )


def _smear(image: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """Blurs along the street, around the end of the period; `length` is in pixels."""
    if length < 2:
        return image
    half = length // 2
    padded = cv2.copyMakeBorder(image, half, half, 0, 0, cv2.BORDER_WRAP)
    across = max(1, length // 8) | 1
    return np.asarray(cv2.blur(padded, (min(across, 15), 2 * half + 1))[half:-half], np.uint8)
