"""Cell nuclei as a fluorescence microscope shows them, alone and in touching groups, with exact instances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.street import SceneFrame
from errseg_rt.scenes.textures import grain

_ROOM = 1.25e-3
"""Nuclei for a pixel."""
_TOUCHING = 0.55
"""Share of nuclei that are placed beside another one."""
_SLIDE = 9.0
"""Pixels a second at most by which the stage moves."""
_CORNERS = 48
_SHIFT = 4  # binary digits behind the point of coordinates that OpenCV is given


@dataclass(frozen=True)
class _Nucleus:
    x: float
    y: float
    radius: float
    outline: NDArray[np.float32]  # [_CORNERS, 2], about the centre
    light: float
    turn: float  # radians a second

    def placed(self, dx: float, dy: float, time: float) -> NDArray[np.int32]:
        """Its outline as OpenCV takes it."""
        sin, cos = math.sin(self.turn * time), math.cos(self.turn * time)
        turned = self.outline @ np.array([[cos, sin], [-sin, cos]], np.float32)
        center = np.array([self.x + dx, self.y + dy])
        return np.asarray(np.rint((turned + center) * (1 << _SHIFT)), np.int32)


class NucleiScene:
    """One seeded slide; the same (seed, height, width, fps) gives the same clip bit for bit.

    Args:
        seed: Not negative.
        height: Rows of a frame, at least 32.
        width: Columns of a frame, at least 32.
        fps: Frames per second of the clip.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, seed: int, height: int = 360, width: int = 480, fps: float = 15.0) -> None:
        if seed < 0 or min(height, width) < 32 or not fps > 0:
            raise ValueError(
                f"a scene has a seed from 0, sides from 32 and a rate above 0, got {seed}, {height}x{width}, {fps}"
            )
        self._seed, self.height, self.width, self.fps = seed, height, width, fps
        rng = np.random.default_rng([seed, 0])
        self._slide = rng.uniform(-_SLIDE, _SLIDE, 2)
        self._nuclei = _slide_of(rng, height, width)
        self._haze = cv2.resize(grain(rng, 8, 8, 4), (width, height), interpolation=cv2.INTER_CUBIC)
        self._texture = cv2.GaussianBlur(grain(rng, 2 * height, 2 * width, 3), (0, 0), 1.0)
        self._gain = float(rng.uniform(0.7, 1.0))

    def frame(self, index: int) -> SceneFrame:
        """One frame: labels 1 for nuclei and 0 elsewhere; an instance's id stays with its nucleus.

        Raises:
            ValueError: The index is negative.
        """
        if index < 0:
            raise ValueError(f"frames count from 0, got {index}")
        time = index / self.fps
        # To and fro, so that the slide does not end.
        dx, dy = self._slide * 4.0 * math.sin(time / 4.0)
        instances = np.zeros((self.height, self.width), np.uint16)
        light = np.zeros((self.height, self.width), np.float32)
        for number, nucleus in enumerate(self._nuclei, 1):
            corners = nucleus.placed(dx, dy, time)
            cv2.fillPoly(instances, [corners], number, shift=_SHIFT)
            cv2.fillPoly(light, [corners], nucleus.light, shift=_SHIFT)
        left, top = (round(shift) % side for shift, side in ((-dx, self.width), (-dy, self.height)))
        texture = self._texture[top : top + self.height, left : left + self.width]
        light *= 0.75 + 0.25 * texture
        rng = np.random.default_rng([self._seed, 1, index])
        seen = cv2.GaussianBlur(light, (0, 0), 1.1) + 0.35 * cv2.GaussianBlur(light, (0, 0), 8.0)
        seen = self._gain * (seen + 0.02 + 0.03 * self._haze)
        noise = rng.standard_normal(seen.shape, np.float32)
        seen += noise * np.sqrt(np.maximum(seen, 0.0) * 4e-4 + 2e-5)
        gray = np.clip(255 * seen, 0, 255).astype(np.uint8)
        return SceneFrame(np.repeat(gray[..., None], 3, axis=2), (instances > 0).astype(np.uint8), instances)


def _slide_of(rng: np.random.Generator, height: int, width: int) -> list[_Nucleus]:
    """Nuclei that touch at most, on more than the frame shows, since the stage moves."""
    margin = 6 * _SLIDE
    wide, high = width + 2 * margin, height + 2 * margin
    typical = float(rng.uniform(9.0, 14.0))
    placed: list[_Nucleus] = []
    for _ in range(round(_ROOM * wide * high)):
        radius = typical * float(rng.uniform(0.7, 1.3))
        for _ in range(8):  # where there is no room for it, it is left out
            if placed and rng.random() < _TOUCHING:
                beside = placed[rng.integers(len(placed))]
                angle, apart = rng.uniform(0, 2 * math.pi), beside.radius + radius
                x, y = beside.x + apart * math.cos(angle), beside.y + apart * math.sin(angle)
            else:
                x, y = rng.uniform(-margin, wide - margin), rng.uniform(-margin, high - margin)
            if all(math.hypot(x - each.x, y - each.y) >= 0.98 * (radius + each.radius) for each in placed):
                placed.append(_random_nucleus(rng, float(x), float(y), radius))
                break
    return placed


def _random_nucleus(rng: np.random.Generator, x: float, y: float, radius: float) -> _Nucleus:
    angles = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
    reach = np.ones(_CORNERS)
    for waves in (2, 3, 4):
        reach += rng.normal(0, 0.09 / waves) * np.cos(waves * angles + rng.uniform(0, 2 * math.pi))
    stretch = rng.uniform(0.8, 1.25)
    outline = radius * reach[:, None] * np.stack([np.cos(angles) * stretch, np.sin(angles) / stretch], axis=1)
    light, turn = float(rng.uniform(0.25, 0.8)), float(rng.normal(0, 0.05))
    return _Nucleus(x, y, radius, outline.astype(np.float32), light, turn)
