"""Surfaces of a street, drawn once per seed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.canvas import Color


def grain(rng: np.random.Generator, height: int, width: int, cell: int) -> NDArray[np.float32]:
    """Smooth noise `float32 [height, width]` of about unit variance whose features are `cell` pixels wide; it tiles."""
    rows, cols = max(2, round(height / cell)), max(2, round(width / cell))
    coarse = rng.standard_normal((rows, cols), np.float32)
    padded = cv2.copyMakeBorder(coarse, 2, 2, 2, 2, cv2.BORDER_WRAP)
    u = (np.arange(width, dtype=np.float32) * (cols / width) + 2)[None].repeat(height, 0)
    v = (np.arange(height, dtype=np.float32) * (rows / height) + 2)[:, None].repeat(width, 1)
    return np.asarray(cv2.remap(padded, u, v, cv2.INTER_LINEAR), np.float32)


def pyramid(image: NDArray[np.uint8], levels: int) -> list[NDArray[np.uint8]]:
    """The image and its halvings."""
    steps = [image]
    for _ in range(levels - 1):
        last = steps[-1]
        size = (max(1, last.shape[1] // 2), max(1, last.shape[0] // 2))
        steps.append(np.asarray(cv2.resize(last, size, interpolation=cv2.INTER_AREA), np.uint8))
    return steps


def facade(rng: np.random.Generator, base: Color, density: int, storeys: int, width: float) -> NDArray[np.uint8]:
    """A house front, BGR `uint8 [storeys * 3 * density, width * density, 3]`.

    Args:
        rng: Source of all choices.
        base: BGR of the wall.
        density: Pixels per metre.
        storeys: Storeys of three metres each; the lowest is a shop or a door with windows.
        width: Metres.
    """
    h, w = storeys * 3 * density, round(width * density)
    wall = np.empty((h, w, 3), np.float32)
    wall[:] = base
    wall *= (1.0 + 0.07 * grain(rng, h, w, density))[..., None]
    if rng.random() < 0.6:
        _bricks(rng, wall, density)
    wall *= (1.0 + 0.04 * rng.standard_normal((h, w), np.float32))[..., None]
    image = np.clip(wall, 0, 255).astype(np.uint8)
    frame: Color = (215, 218, 220) if rng.random() < 0.7 else (50, 45, 40)
    bays = max(2, round(width / rng.uniform(2.2, 3.4)))
    pane_w, pane_h = rng.uniform(0.45, 0.62) * width / bays, rng.uniform(1.2, 1.8)
    shop = rng.random() < 0.55
    for storey in range(storeys):
        floor = h - storey * 3 * density
        if storey == 0 and shop:
            _shop(rng, image, floor, density, width)
            continue
        for bay in range(bays):
            middle = (bay + 0.5) * width / bays
            door = storey == 0 and bay == bays // 2
            low, high = (0.0, 2.2) if door else (0.8, 0.8 + pane_h)
            corners = (middle - pane_w / 2, low, middle + pane_w / 2, high)
            _window(rng, image, floor, density, corners, frame, door)
    cornice = max(1, round(0.25 * density))
    image[:cornice] = np.clip(np.asarray(base) * 1.2 + 15, 0, 255).astype(np.uint8)
    return image


def _bricks(rng: np.random.Generator, wall: NDArray[np.float32], density: int) -> None:
    h, w = wall.shape[:2]
    course = max(2, round(0.15 * density))
    rows, cols = h // course + 1, w // (2 * course) + 2
    tone = 1.0 + 0.09 * rng.standard_normal((rows, cols), np.float32)
    row = np.arange(h) // course
    col = (np.arange(w)[None] + (row % 2 * course)[:, None]) // (2 * course)
    wall *= tone[row[:, None], col][..., None]
    joints = (np.arange(h) % course == 0)[:, None] | (
        (np.arange(w)[None] + (row % 2 * course)[:, None]) % (2 * course) == 0
    )
    wall[joints] *= 1.12


def _window(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    floor: int,
    density: int,
    corners: tuple[float, float, float, float],
    frame: Color,
    door: bool,
) -> None:
    left, low, right, high = corners
    x0, x1 = round(left * density), round(right * density)
    y0, y1 = floor - round(high * density), floor - round(low * density)
    edge = max(1, round(0.08 * density))
    cv2.rectangle(image, (x0 - edge, y0 - edge), (x1 + edge, y1 + edge), frame, -1)
    glass = rng.uniform(35, 95)
    color: Color = (glass * 1.05, glass, glass * 0.95)
    if door:
        color = (rng.uniform(20, 120), rng.uniform(20, 100), rng.uniform(20, 120))
    cv2.rectangle(image, (x0, y0), (x1, y1), color, -1)
    if door:
        return
    if rng.random() < 0.5:
        drop = y0 + round((y1 - y0) * rng.uniform(0.15, 0.5))
        cv2.rectangle(image, (x0, y0), (x1, drop), (glass + 90, glass + 95, glass + 95), -1)
    cv2.line(image, (x0, (y0 + y1) // 2), (x1, (y0 + y1) // 2), frame, max(1, edge // 2))
    cv2.line(image, ((x0 + x1) // 2, y0), ((x0 + x1) // 2, y1), frame, max(1, edge // 2))
    cv2.rectangle(image, (x0 - 2 * edge, y1 + edge), (x1 + 2 * edge, y1 + 2 * edge), (190, 192, 195), -1)


def _shop(rng: np.random.Generator, image: NDArray[np.uint8], floor: int, density: int, width: float) -> None:
    w = image.shape[1]
    board = tuple(float(c) for c in rng.uniform(20, 170, 3))
    cv2.rectangle(image, (0, floor - 3 * density), (w, floor), tuple(0.45 * c + 20 for c in board), -1)
    top, low = floor - round(2.95 * density), floor - round(2.35 * density)
    cv2.rectangle(image, (0, top), (w, low), board, -1)
    x = 0.8
    while x < width - 1.2:
        letter = rng.uniform(0.15, 0.35)
        spot = (round(x * density), round(top + 0.2 * density))
        cv2.rectangle(image, spot, (round((x + letter) * density), round(low - 0.15 * density)), (225, 228, 230), -1)
        x += letter + rng.uniform(0.1, 0.3)
    panes = max(2, round(width / rng.uniform(1.4, 2.6)))
    for pane in range(panes):
        x0, x1 = (round((pane + part) * w / panes) for part in (0.07, 0.93))
        glass = rng.uniform(25, 80)
        cv2.rectangle(image, (x0, low + density // 6), (x1, floor - density // 3), (glass, glass, glass), -1)
        for _ in range(5):
            u = int(rng.integers(x0, max(x1, x0 + 1)))
            v = int(rng.integers(low + density // 4, floor - density // 3))
            side = max(1, round(rng.uniform(0.1, 0.5) * density))
            goods = tuple(float(c) for c in rng.uniform(30, 190, 3))
            cv2.rectangle(image, (u, v), (min(u + side, x1), min(v + side, floor - density // 3)), goods, -1)


def leafy_tree(rng: np.random.Generator, size: int, foliage: Color, sun_side: int) -> NDArray[np.uint8]:
    """A crown with gaps, BGRA `uint8 [size, size, 4]`; alpha is the shape."""
    alpha = np.zeros((size, size), np.float32)
    light = np.zeros((size, size), np.float32)
    v, u = np.mgrid[0:size, 0:size].astype(np.float32) / size
    for _ in range(30):
        angle, reach = rng.uniform(0, 2 * np.pi), 0.36 * np.sqrt(rng.uniform(0, 1))
        cx, cy, r = 0.5 + reach * np.cos(angle), 0.5 + reach * np.sin(angle), rng.uniform(0.07, 0.15)
        distance = (u - cx) ** 2 + (v - cy) ** 2
        blob = np.maximum(1.0 - distance / r**2, 0.0)
        alpha = np.maximum(alpha, blob)
        facing = 0.5 + 0.5 * ((u - cx) * sun_side * 0.6 - (v - cy)) / r
        light = np.where(blob > 0, 0.6 * light + 0.4 * facing, light)
    leaves = 0.8 * grain(rng, size, size, 3) + 0.8 * grain(rng, size, size, 6) + 0.8 * grain(rng, size, size, 18)
    shape = (alpha + 0.26 * leaves > 0.2) & (alpha > 0)
    tone = np.clip(0.6 + 0.75 * light, 0.35, 1.6) * (1.0 + 0.2 * leaves)
    color = np.asarray(foliage, np.float32) * tone[..., None]
    return _sprite(color, shape)


def bare_tree(rng: np.random.Generator, size: int, bark: Color) -> NDArray[np.uint8]:
    """Branches in winter, BGRA `uint8 [size, size, 4]`; alpha is the shape."""
    color = np.zeros((size, size, 3), np.uint8)
    color[:] = bark
    shape = np.zeros((size, size), np.uint8)
    ends: list[tuple[float, float, float, float, int]] = [(0.5, 1.0, -np.pi / 2, 0.165, 0)]
    while ends:
        x, y, angle, length, order = ends.pop()
        x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
        thick = max(1, round(size * 0.026 * 0.62**order))
        cv2.line(shape, (round(x * size), round(y * size)), (round(x1 * size), round(y1 * size)), 255, thick)
        if order < 6:
            ends.extend(
                (x1, y1, angle + spread + rng.normal(0, 0.14), length * rng.uniform(0.7, 0.9), order + 1)
                for spread in ((-0.42, 0.0, 0.42) if order < 4 else (-0.4, 0.4))
            )
    tone = 1.0 + 0.15 * grain(rng, size, size, 6)
    return _sprite(color * tone[..., None], shape > 0)


def _sprite(color: NDArray[np.float32], shape: NDArray[np.bool_]) -> NDArray[np.uint8]:
    alpha = np.where(shape, 255, 0)[..., None]
    return np.concatenate([np.clip(color, 0, 255), alpha], axis=2).astype(np.uint8)
