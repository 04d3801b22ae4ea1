"""Surfaces whose every pixel is traced back into the world: ground, walls, fences, sprites."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.camera import FAR, NEAR
from errseg_rt.scenes.canvas import FENCE, tag, tag_depths
from errseg_rt.scenes.painter import Card, Painter


class _Patch:
    """The pixels of a wall along the street: rectangle, depth per column, height per pixel."""

    def __init__(self, painter: Painter, x: float, z0: float, z1: float, low: float, high: float) -> None:
        camera, canvas = painter.camera, painter.canvas
        self.empty = True
        near, far = max(z0 - camera.z, NEAR), min(z1 - camera.z, FAR)
        if near >= far or abs(x - camera.x) < 1e-6:
            return
        ends = [camera.project(x, high, depth) for depth in (near, 0.5 * (near + far), far)]
        ends += [camera.project(x, low, depth) for depth in (near, far)]
        left = max(math.floor(min(u for u, _ in ends)), 0)
        right = min(math.ceil(max(u for u, _ in ends)) + 1, canvas.width)
        top = max(math.floor(min(v for _, v in ends)), 0)
        bottom = min(math.ceil(max(v for _, v in ends)) + 1, canvas.height)
        if left >= right or top >= bottom:
            return
        depths = camera.wall_depths(x, np.arange(left, right, dtype=np.float64))
        hit = (depths >= near) & (depths < far)
        if not hit.any():
            return
        first, last = int(hit.argmax()), int(len(hit) - hit[::-1].argmax())
        self.empty = False
        self.top, self.left = top, left + first
        self.hit = hit[first:last]
        self.depths = np.where(self.hit, depths[first:last], near)
        rows = (np.arange(top, bottom) - camera.horizon) / camera.focal
        self.heights = (camera.eye - rows[:, None] * self.depths[None]).astype(np.float32)
        self.along = (self.depths + camera.z - z0).astype(np.float32)
        self.mask = (self.heights >= low) & (self.heights <= high) & self.hit[None]


def paint_wall(
    painter: Painter,
    levels: list[NDArray[np.uint8]],  # each [h, w, 3], BGR
    label: int,
    x: float,
    z0: float,
    z1: float,
    height: float,
    light: float,
) -> None:
    """Hangs a picture on the upright plane at street offset `x` from `z0` to `z1`, from the ground to `height`."""
    patch = _Patch(painter, x, z0, z1, 0.0, height)
    if patch.empty:
        return
    texels = levels[0].shape[0] / height
    middle = float(patch.depths[len(patch.depths) // 2])
    blur = texels * middle / painter.camera.focal
    level = levels[min(max(round(math.log2(max(blur, 1e-3)) + 0.4), 0), len(levels) - 1)]
    h, w = level.shape[:2]
    us = np.broadcast_to(patch.along * (w / (z1 - z0)) - 0.5, patch.heights.shape)
    vs = (height - patch.heights) * (h / height) - 0.5
    color = cv2.remap(level, np.ascontiguousarray(us), vs, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    color = cv2.convertScaleAbs(color, alpha=light)
    painter.canvas.paint(
        patch.top, patch.left, patch.mask, np.asarray(color, np.uint8), tag_depths(label, patch.depths)
    )


def paint_fence(
    painter: Painter,
    x: float,
    z0: float,
    z1: float,
    height: float,
    pitch: float,
    color: tuple[float, float, float],
) -> None:
    """A railing along the street with see-through bars every `pitch` metres.

    A bar or rail is never thinner than a pixel, so far fences close up as they do to the eye.
    """
    patch = _Patch(painter, x, z0, z1, 0.0, height)
    if patch.empty:
        return
    pixel = patch.depths / painter.camera.focal
    foot = np.abs(np.gradient(patch.depths)) if len(patch.depths) > 1 else pixel
    bars = np.mod(patch.along, pitch) < np.maximum(0.022, np.where(patch.hit, foot, pitch))
    posts = np.mod(patch.along, 2.0) < np.maximum(0.06, foot)
    bar_area = (patch.heights > 0.12) & (patch.heights < height - 0.03)
    rail = np.maximum(0.035, pixel)[None]
    rails = (patch.heights > height - rail) | (np.abs(patch.heights - 0.14) < 0.5 * rail)
    shape = ((bars[None] & bar_area) | rails | posts[None]) & patch.mask
    paint = np.empty((*shape.shape, 3), np.uint8)
    paint[:] = color
    painter.canvas.paint(patch.top, patch.left, shape, paint, tag_depths(FENCE, patch.depths))


def paint_sprite(
    painter: Painter,
    card: Card,
    levels: list[NDArray[np.uint8]],  # each [s, s, 4], BGRA
    label: int,
    middle: tuple[float, float],
    wide: float,
    high: float,
) -> None:
    """Draws a cut-out picture on a card, `wide` by `high` metres around a point (metres right, metres up)."""
    canvas = painter.canvas
    u0, v0 = card.u + card.scale * (middle[0] - wide / 2), card.v - card.scale * (middle[1] + high / 2)
    w, h = card.scale * wide, card.scale * high
    left, top = max(math.floor(u0), 0), max(math.floor(v0), 0)
    right, bottom = min(math.ceil(u0 + w) + 1, canvas.width), min(math.ceil(v0 + h) + 1, canvas.height)
    if left >= right or top >= bottom:
        return
    blur = levels[0].shape[0] / max(h, 1e-3)
    level = levels[min(max(round(math.log2(max(blur, 1e-3))), 0), len(levels) - 1)]
    size = level.shape[0]
    across, down = w / size, h / size
    onto = np.array([[1 / across, 0, (left - u0) / across - 0.5], [0, 1 / down, (top - v0) / down - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = np.asarray(cv2.warpAffine(level, onto, (right - left, bottom - top), flags=flags), np.uint8)
    mask = picture[..., 3] > 90
    color = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR), np.uint8)
    canvas.paint(top, left, mask, color, tag(label, card.depth))
