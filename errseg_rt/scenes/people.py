"""Pedestrians and bicyclists."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from errseg_rt.scenes.canvas import BICYCLIST, PEDESTRIAN, Color
from errseg_rt.scenes.painter import Card, Painter, shaded

_CLOTHES: tuple[Color, ...] = (
    (35, 33, 32), (70, 60, 50), (45, 45, 120), (120, 90, 60), (60, 60, 60), (150, 150, 155), (60, 90, 70),
    (40, 60, 150), (170, 175, 180), (80, 45, 60),
)  # fmt: skip
_TROUSERS: tuple[Color, ...] = ((35, 33, 32), (70, 60, 50), (95, 65, 45), (60, 60, 60), (85, 105, 120), (48, 42, 62))
_TYRE: Color = (28, 28, 28)
_SKINS: tuple[Color, ...] = ((150, 175, 215), (110, 140, 190), (60, 85, 130))

_FAR_PIXELS = 22
"""People less tall than this on the picture are drawn without arms and knees, which would not show."""


@dataclass(frozen=True)
class Person:
    """One person's build and clothes.

    Attributes:
        height: Metres.
        coat: BGR of the upper body.
        trousers: BGR of the legs.
        skin: BGR of head and hands.
        pace: Steps per second.
        phase: Start of the step in radians.
        bag: Whether a bag hangs at the side.
    """

    height: float
    coat: Color
    trousers: Color
    skin: Color
    pace: float
    phase: float
    bag: bool

    def walk(self, painter: Painter, x: float, z: float, time: float, instance: int) -> None:
        """Draws the person on foot."""
        card = painter.card(x, z)
        if card is None:
            return
        h, light = self.height, painter.look.lit(0.0) + 0.1
        swing = math.sin(self.phase + math.pi * self.pace * time) if self.pace else 0.25
        hip, knee, shoulder = 0.5 * h, 0.27 * h, 0.81 * h
        trousers, coat = shaded(self.trousers, light), shaded(self.coat, light)
        if h * card.scale < _FAR_PIXELS:
            for side in (-1, 1):
                foot = (side * 0.055 + 0.13 * side * swing) * h
                card.limb((side * 0.04 * h, hip), (foot, 0.0), 0.09 * h, trousers, PEDESTRIAN, instance)
            card.box(-0.14 * h, hip - 0.04 * h, 0.14 * h, shoulder, coat, PEDESTRIAN, instance)
            card.box(-0.05 * h, shoulder, 0.05 * h, h, shaded(self.skin, light), PEDESTRIAN, instance)
            return
        for side in (-1, 1):
            step = side * swing
            lift = 0.05 * h * max(step, 0.0)
            bend = (side * 0.05 + 0.06 * step) * h
            foot = (side * 0.055 + 0.13 * step) * h
            leg = shaded(trousers, 1.0 if side > 0 else 0.85)
            card.limb((side * 0.045 * h, hip), (bend, knee + lift), 0.1 * h, leg, PEDESTRIAN, instance)
            card.limb((bend, knee + lift), (foot, lift), 0.075 * h, leg, PEDESTRIAN, instance)
            card.box(foot - 0.05 * h, lift, foot + 0.06 * h, lift + 0.035 * h, (25, 25, 25), PEDESTRIAN, instance)
        self._upper(card, PEDESTRIAN, hip, shoulder, swing, light, instance)
        if self.bag:
            card.box(0.12 * h, 0.42 * h, 0.2 * h, 0.56 * h, shaded((40, 60, 90), light), PEDESTRIAN, instance)
        card.shape(
            ((-0.1 * h, hip - 0.04 * h), (0.1 * h, hip - 0.04 * h), (0.12 * h, shoulder), (-0.12 * h, shoulder)),
            coat,
            PEDESTRIAN,
            instance,
        )
        self._head(card, PEDESTRIAN, light, 0.0, instance)

    def ride(self, painter: Painter, x: float, z: float, time: float, ahead: int, instance: int) -> None:
        """Draws the person on a bicycle along the street; `ahead` is 1 for the camera's way, -1 for towards it."""
        camera, light = painter.camera, painter.look.lit(0.0) + 0.1
        card = painter.card(x, z)
        if card is None:
            return
        thick = max(0.022, 0.4 * card.depth / camera.focal)
        for offset in (0.55, -0.5):
            hub = z + offset
            outer = [(x, 0.36 + 0.36 * math.sin(a), hub + 0.36 * math.cos(a)) for a in _TURN]
            inner = [(x, 0.36 + 0.32 * math.sin(a), hub + 0.32 * math.cos(a)) for a in _TURN]
            painter.face((*outer, outer[0], inner[0], *reversed(inner)), _TYRE, BICYCLIST, instance)
            strip = ((x - thick, 0.0, hub), (x + thick, 0.0, hub), (x + thick, 0.72, hub), (x - thick, 0.72, hub))
            painter.face(strip, _TYRE, BICYCLIST, instance)
        frame = shaded(self.trousers, 1.6)
        for (z0, y0), (z1, y1) in _FRAME:
            near, far = z + ahead * z0, z + ahead * z1
            painter.face(
                ((x - thick, y0, near), (x + thick, y0, near), (x + thick, y1, far), (x - thick, y1, far)),
                frame,
                BICYCLIST,
                instance,
            )
        card.limb((-0.26, 1.02), (0.26, 1.02), 0.04, (40, 40, 40), BICYCLIST, instance)
        turn = self.phase + 2.0 * math.pi * self.pace * time
        trousers, coat = shaded(self.trousers, light), shaded(self.coat, light)
        for side in (-1, 1):
            foot = 0.3 + 0.16 * side * math.sin(turn)
            knee = 0.5 * (foot + 0.95) + 0.05
            card.limb((side * 0.09, 0.95), (side * 0.15, knee), 0.15, trousers, BICYCLIST, instance)
            card.limb((side * 0.15, knee), (side * 0.11, foot), 0.11, trousers, BICYCLIST, instance)
            card.limb((side * 0.19, 1.42), (side * 0.26, 1.04), 0.08, shaded(coat, 0.9), BICYCLIST, instance)
        card.shape(((-0.16, 0.88), (0.16, 0.88), (0.22, 1.48), (-0.22, 1.48)), coat, BICYCLIST, instance)
        lift = 1.68 - 0.92 * self.height
        self._head(card, BICYCLIST, light, lift, instance)

    def _upper(
        self, card: Card, label: int, hip: float, shoulder: float, swing: float, light: float, instance: int
    ) -> None:
        """Arms."""
        h, sleeve = self.height, shaded(self.coat, 0.85 * light)
        for side in (-1, 1):
            hand = (side * 0.15 - 0.07 * side * swing) * h
            card.limb((side * 0.125 * h, shoulder - 0.02 * h), (hand, hip), 0.055 * h, sleeve, label, instance)
            card.disc(hand, hip - 0.02 * h, 0.02 * h, 0.025 * h, shaded(self.skin, light), label, instance)

    def _head(self, card: Card, label: int, light: float, lift: float, instance: int) -> None:
        """Neck, face and hair."""
        h = self.height
        card.box(-0.025 * h, 0.8 * h + lift, 0.025 * h, 0.87 * h + lift, shaded(self.skin, light), label, instance)
        card.disc(0.0, 0.92 * h + lift, 0.05 * h, 0.07 * h, shaded(self.skin, light), label, instance)
        hair = [(0.055 * h * math.cos(a), (0.93 + 0.07 * math.sin(a)) * h + lift) for a in _HALF_TURN]
        card.shape(hair, shaded(self.trousers, 0.8 * light), label, instance)


_TURN = tuple(i * math.pi / 7 for i in range(14))
_HALF_TURN = tuple(i * math.pi / 6 for i in range(7))
_FRAME = (
    ((-0.5, 0.36), (0.0, 0.32)), ((0.0, 0.32), (-0.12, 0.9)), ((-0.1, 0.8), (0.42, 0.82)), ((0.0, 0.32), (0.42, 0.78)),
    ((0.4, 1.02), (0.55, 0.36)),
)  # fmt: skip
"""Bicycle tubes as (metres ahead of the saddle, metres up)."""


def random_person(rng: np.random.Generator, moving: bool = True) -> Person:
    """Mostly grown-ups in muted clothes."""
    return Person(
        height=float(rng.choice((rng.uniform(1.55, 1.9), rng.uniform(1.1, 1.4)), p=(0.9, 0.1))),
        coat=_CLOTHES[int(rng.integers(len(_CLOTHES)))],
        trousers=_TROUSERS[int(rng.integers(len(_TROUSERS)))],
        skin=_SKINS[int(rng.integers(len(_SKINS)))],
        pace=float(rng.uniform(1.5, 2.0)) if moving else 0.0,
        phase=float(rng.uniform(0, 2 * math.pi)),
        bag=bool(rng.random() < 0.3),
    )
