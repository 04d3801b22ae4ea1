"""Street furniture: lamps, sign posts, traffic lights, boards, bollards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from errseg_rt.scenes.canvas import POLE, SIGN, Color
from errseg_rt.scenes.painter import Card, Painter, shaded

KINDS = ("lamp", "round", "warning", "plate", "lights", "board", "bollard")
"""What stands at the kerb."""

_WHITE: Color = (232, 232, 230)
_RED: Color = (40, 35, 190)
_BLUE: Color = (150, 75, 30)


@dataclass(frozen=True)
class Furniture:
    """One thing at the kerb.

    Attributes:
        kind: One of `KINDS`.
        height: Metres.
        metal: BGR of the post.
        accent: BGR of what it shows.
        signal: Lit lamp of a traffic light, 0 red, 1 amber, 2 green.
        extra: Whether a lamp also carries a sign.
    """

    kind: str
    height: float
    metal: Color
    accent: Color
    signal: int
    extra: bool

    def draw(self, painter: Painter, x: float, z: float, inward: int) -> None:
        """Draws it at (x, z); `inward` is the direction of the road, -1 left or 1 right."""
        card = painter.card(x, z)
        if card is None:
            return
        light = painter.look.lit(0.0) + 0.1
        metal = shaded(self.metal, light)
        h = self.height
        if self.kind == "lamp":
            card.limb((0, 0), (0, h), 0.13, metal, POLE)
            card.box(-0.11, 0, 0.11, 1.1, metal, POLE)
            card.limb((0, h), (inward * 1.5, h + 0.35), 0.09, metal, POLE)
            card.box(inward * 1.45 - 0.3, h + 0.28, inward * 1.45 + 0.3, h + 0.44, shaded(metal, 1.2), POLE)
            if self.extra:
                card.disc(0, 2.6, 0.36, 0.36, _RED, SIGN)
                card.disc(0, 2.6, 0.25, 0.25, shaded(_WHITE, light), SIGN)
        elif self.kind == "lights":
            self._lights(card, metal, inward)
        elif self.kind == "board":
            card.box(-0.75, 0.25, 0.75, 2.1, shaded(self.metal, 0.6), SIGN)
            card.box(-0.66, 0.35, 0.66, 2.0, shaded(self.accent, light), SIGN)
            card.box(-0.5, 1.35, 0.5, 1.8, shaded(_WHITE, light), SIGN)
            card.disc(0.1, 0.85, 0.3, 0.25, shaded((60, 150, 210), light), SIGN)
            for side in (-0.6, 0.6):
                card.box(side - 0.05, 0, side + 0.05, 0.25, metal, POLE)
        elif self.kind == "bollard":
            card.limb((0, 0), (0, 1.0), 0.16, shaded((35, 33, 32), light), POLE)
            card.box(-0.08, 0.78, 0.08, 0.86, shaded(_WHITE, light), POLE)
        else:
            card.limb((0, 0), (0, h), 0.08, metal, POLE)
            self._sign(card, light)

    def _sign(self, card: Card, light: float) -> None:
        h = self.height
        white = shaded(_WHITE, light)
        if self.kind == "round":
            rim = _RED if self.extra else _BLUE
            card.disc(0, h - 0.35, 0.4, 0.4, shaded(rim, light), SIGN)
            card.disc(0, h - 0.35, 0.28, 0.28, white if self.extra else shaded(_BLUE, 1.3 * light), SIGN)
            card.box(-0.05, h - 0.52, 0.05, h - 0.18, (30, 30, 30) if self.extra else white, SIGN)
        elif self.kind == "warning":
            card.shape(((-0.5, h - 0.8), (0.5, h - 0.8), (0, h + 0.05)), shaded(_RED, light), SIGN)
            card.shape(((-0.33, h - 0.7), (0.33, h - 0.7), (0, h - 0.14)), white, SIGN)
            card.box(-0.05, h - 0.66, 0.05, h - 0.38, (30, 30, 30), SIGN)
        else:
            card.box(-0.6, h - 0.75, 0.6, h, white, SIGN)
            card.box(-0.55, h - 0.7, 0.55, h - 0.05, shaded(self.accent, light), SIGN)
            for row in range(3):
                low = h - 0.25 - 0.19 * row
                card.box(-0.42, low, 0.42 - 0.15 * row, low + 0.08, white, SIGN)

    def _lights(self, card: Card, metal: Color, inward: int) -> None:
        card.limb((0, 0), (0, 3.4), 0.12, metal, POLE)
        for left in (-0.2, inward * 0.75 - 0.2) if self.extra else (-0.2,):
            if left != -0.2:
                card.limb((0, 3.3), (inward * 0.75, 3.3), 0.07, metal, POLE)
            card.box(left, 2.3, left + 0.4, 3.45, (28, 28, 28), SIGN)
            for lamp, (on, off) in enumerate(_LAMPS):
                color = on if lamp == self.signal else off
                card.disc(left + 0.2, 3.22 - 0.35 * lamp, 0.12, 0.12, color, SIGN)


_LAMPS: tuple[tuple[Color, Color], ...] = (
    ((60, 50, 250), (30, 25, 60)),
    ((40, 170, 250), (25, 45, 60)),
    ((150, 245, 60), (35, 50, 25)),
)


@dataclass(frozen=True)
class ShopSign:
    """A board that sticks out from a house front.

    Attributes:
        low: Metres from the ground to its lower edge.
        wide: Metres.
        high: Metres.
        color: BGR.
    """

    low: float
    wide: float
    high: float
    color: Color

    def draw(self, painter: Painter, x: float, z: float, inward: int) -> None:
        """Draws it on the front at street offset `x`."""
        card = painter.card(x, z)
        if card is None:
            return
        light = painter.look.lit(0.0) + 0.1
        near, far = sorted((inward * 0.15, inward * (0.15 + self.wide)))
        card.box(near, self.low, far, self.low + self.high, shaded(self.color, light), SIGN)
        inset = 0.22 * self.wide
        middle = self.low + 0.5 * self.high
        card.box(near + inset, middle - 0.1, far - inset, middle + 0.1, shaded(_WHITE, light), SIGN)


def random_furniture(rng: np.random.Generator, kind: str) -> Furniture:
    """Varies one kind."""
    tall = kind == "lamp"
    grey = rng.uniform(60, 150)
    return Furniture(
        kind=kind,
        height=float(rng.uniform(5.5, 8.5) if tall else rng.uniform(2.3, 3.1)),
        metal=(grey * 1.02, grey, grey * 0.97),
        accent=tuple(float(c) for c in rng.uniform(20, 190, 3)),  # type: ignore[arg-type]
        signal=int(rng.integers(3)),
        extra=bool(rng.random() < (0.25 if tall else 0.55)),
    )


def random_shop_sign(rng: np.random.Generator) -> ShopSign:
    """Boards of half a metre to a metre and a half."""
    return ShopSign(
        low=float(rng.uniform(2.4, 4.0)),
        wide=float(rng.uniform(0.6, 1.3)),
        high=float(rng.uniform(0.6, 1.4)),
        color=tuple(float(c) for c in rng.uniform(20, 200, 3)),  # type: ignore[arg-type]
    )
