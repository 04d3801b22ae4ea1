"""What lies between the street and the picture: sky, haze, light, lens, sensor."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.canvas import SKY, Canvas, tag
from errseg_rt.scenes.look import Look
from errseg_rt.scenes.textures import grain

_NOISE_SHIFTS = 64
"""The noise pattern takes this many positions along each axis."""


def cloud_field(rng: np.random.Generator) -> NDArray[np.float32]:
    """Clouds of one seed, `float32 [256, 512]`, about 0..1."""
    clouds = np.full((256, 512), 0.5, np.float32)
    for weight, cell in ((0.25, 96), (0.15, 40), (0.08, 16), (0.04, 6)):
        clouds += weight * grain(rng, 256, 512, cell)
    return np.asarray(np.clip(clouds, 0, 1), np.float32)


def sky_panorama(rng: np.random.Generator, look: Look, height: int, width: int) -> NDArray[np.uint8]:
    """The sky around the vanishing point of a frame of this size, BGR `uint8 [height, 2 * width, 3]`.

    Its last row lies on the horizon and its middle column over the vanishing point.
    """
    clouds = cloud_field(rng)
    rise = np.linspace(1.0, 0.0, height, dtype=np.float32)[:, None]
    us = np.broadcast_to(np.linspace(0, 511, 2 * width, dtype=np.float32), (height, 2 * width))
    vs = np.broadcast_to(255.0 * (1.0 - np.sqrt(rise)), (height, 2 * width))
    cover = np.asarray(
        cv2.remap(clouds, np.ascontiguousarray(us), np.ascontiguousarray(vs), cv2.INTER_LINEAR), np.float32
    )
    cover *= look.clouds * np.minimum(rise * 4, 1)
    low, top = np.asarray(look.sky_low, np.float32), np.asarray(look.sky_top, np.float32)
    clear = (low * (1 - rise) + top * rise)[:, None]
    clouded = np.clip(clear + (0.98 * low - clear) * cover[..., None], 0, 255)
    return np.asarray(clouded, np.uint8)


def paint_sky(canvas: Canvas, panorama: NDArray[np.uint8], horizon: float, center: float) -> None:
    """Fills the canvas with sky from the top to below the horizon."""
    rows = min(max(int(horizon) + 2, 1), canvas.height)
    onto = np.array([[1.0, 0.0, center - panorama.shape[1] / 2], [0.0, 1.0, horizon - panorama.shape[0] + 1]])
    size = (canvas.width, rows)
    canvas.color[:rows] = cv2.warpAffine(panorama, onto, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    canvas.tags[:] = tag(SKY, 0)


class Lens:
    """Turns drawn frames of one size into pictures: haze, smear, blur, light, noise.

    Args:
        rng: Draws the pattern of sensor noise.
        look: Light and lens.
        height: Rows of a frame.
        width: Columns of a frame.
    """

    def __init__(self, rng: np.random.Generator, look: Look, height: int, width: int) -> None:
        self._look = look
        self._fade = np.exp(-np.arange(256, dtype=np.float32) / look.haze)
        self._haze = np.empty((height, width, 3), np.uint8)
        self._haze[:] = np.asarray(look.sky_low, np.uint8)
        v = (np.arange(height, dtype=np.float32) - height / 2) / height
        u = (np.arange(width, dtype=np.float32) - width / 2) / width
        self._gain = look.exposure * (1.0 - look.vignette * 2.0 * (v[:, None] ** 2 + u[None] ** 2))
        self._noise = look.noise * rng.standard_normal((height + _NOISE_SHIFTS, width + _NOISE_SHIFTS), np.float32)
        self._sigma = look.defocus * math.sqrt(max(min(height, width * 0.75) / 360.0, 0.5))

    def develop(
        self, canvas: Canvas, rng: np.random.Generator, motion: float, center: float, horizon: float
    ) -> NDArray[np.uint8]:
        """The picture of a drawn frame, BGR `uint8 [H, W, 3]`.

        Args:
            canvas: The drawn frame.
            rng: Shifts the noise pattern of the street, which is cheaper than fresh noise.
            motion: Growth of the picture around the vanishing point between two frames, as a share.
            center: Column of the vanishing point in pixels.
            horizon: Row of the vanishing point in pixels.
        """
        h, w = canvas.height, canvas.width
        keep = np.asarray(cv2.LUT(canvas.depths(), self._fade), np.float32)
        picture = cv2.blendLinear(canvas.color, self._haze, keep, 1.0 - keep)
        # Two pictures further apart than the blur would show as ghosts.
        smear = min(motion * self._look.zoom_blur, 2.5 * self._sigma / (0.5 * math.hypot(h, w)))
        moved = []
        for sign in (-0.5, 0.5):  # both ways, so that the smear stays centred on the labels
            grow = 1.0 + sign * smear
            onto = np.array([[grow, 0, center * (1 - grow)], [0, grow, horizon * (1 - grow)]])
            moved.append(cv2.warpAffine(picture, onto, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        picture = cv2.GaussianBlur(cv2.addWeighted(moved[0], 0.5, moved[1], 0.5, 0), (0, 0), self._sigma)
        top, left = (int(n) for n in rng.integers(0, _NOISE_SHIFTS, 2))
        noise = self._noise[top : top + h, left : left + w]
        planes = [
            cv2.add(cv2.multiply(plane, self._gain, scale=tint, dtype=cv2.CV_32F), noise, dtype=cv2.CV_8U)
            for plane, tint in zip(cv2.split(picture), self._look.tint, strict=True)
        ]
        return np.asarray(cv2.merge(planes), np.uint8)
