"""What lines the street: houses, and gardens with trees behind a fence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.canvas import BUILDING, TREE, Color
from errseg_rt.scenes.furniture import ShopSign, random_shop_sign
from errseg_rt.scenes.look import Look
from errseg_rt.scenes.painter import Painter, shaded
from errseg_rt.scenes.surfaces import paint_fence, paint_sprite, paint_wall
from errseg_rt.scenes.textures import bare_tree, facade, leafy_tree, pyramid

STOREY = 3.0
_VARIANTS = 6

Pictures = tuple[list[NDArray[np.uint8]], ...]


@dataclass(frozen=True)
class Stock:
    """Pictures that the lots of one street share.

    Attributes:
        facades: House fronts, each a pyramid.
        storeys: Storeys of each front.
        walls: BGR of each front's wall.
        leafy: Crowns, each a pyramid.
        bare: Winter trees, each a pyramid.
    """

    facades: Pictures
    storeys: tuple[int, ...]
    walls: tuple[Color, ...]
    leafy: Pictures
    bare: Pictures


@dataclass(frozen=True)
class Tree:
    """One tree.

    Attributes:
        variant: Index of its picture.
        leaves: Whether it carries leaves.
        height: Metres.
        wide: Metres.
        trunk: Diameter in metres.
    """

    variant: int
    leaves: bool
    height: float
    wide: float
    trunk: float

    def draw(self, painter: Painter, stock: Stock, x: float, z: float) -> None:
        """Draws trunk and crown."""
        card = painter.card(x, z)
        if card is None:
            return
        light = painter.look.lit(0.0) + 0.15
        if not self.leaves:
            size = 1.45 * self.height
            paint_sprite(painter, card, stock.bare[self.variant], TREE, (0.0, 0.5 * size), size, size)
            return
        low = 0.3 * self.height
        card.limb((0, 0), (0.1, 0.6 * self.height), self.trunk, shaded((45, 58, 70), light), TREE)
        middle = (0.0, 0.5 * (low + self.height))
        paint_sprite(painter, card, stock.leafy[self.variant], TREE, middle, self.wide, self.height - low)


@dataclass(frozen=True)
class Lot:
    """A stretch of one side of the street.

    Attributes:
        front: Index of the house front, -1 for a garden.
        setback: Metres between pavement and front.
        roof: Metres from eaves to ridge.
        depth: Metres from front to back.
        trees: (metres from the pavement, metres along the lot, tree).
        fence: Height of the railing in metres, 0 for none.
        pitch: Metres between the railing's bars.
        paint: BGR of the railing.
        signs: (metres along the lot, board).
    """

    front: int
    setback: float
    roof: float
    depth: float
    trees: tuple[tuple[float, float, Tree], ...]
    fence: float
    pitch: float
    paint: Color
    signs: tuple[tuple[float, ShopSign], ...]

    def draw(self, painter: Painter, stock: Stock, side: int, edge: float, z: float, length: float) -> None:
        """Draws the lot from `z` to `z + length` on the left (-1) or right (1); `edge` is where the pavement ends."""
        if self.front < 0:
            for away, along, tree in sorted(self.trees, key=lambda item: -item[1]):
                tree.draw(painter, stock, side * (edge + away), z + along)
        else:
            self._house(painter, stock, side, edge + self.setback, z, length)
        if self.fence:
            light = painter.look.lit(-side)
            paint_fence(painter, side * edge, z, z + length, self.fence, self.pitch, shaded(self.paint, light))

    def _house(self, painter: Painter, stock: Stock, side: int, edge: float, z: float, length: float) -> None:
        x, far_x = side * edge, side * (edge + self.depth)
        height = stock.storeys[self.front] * STOREY
        wall, lit = stock.walls[self.front], painter.look.lit
        ridge_x, ridge = 0.5 * (x + far_x), height + self.roof
        end = max(z, painter.camera.z + 0.5)
        if self.roof:
            tiles = shaded((62, 60, 70), lit(0.0) + 0.15)
            painter.face(
                ((x, height, end), (ridge_x, ridge, end), (ridge_x, ridge, z + length), (x, height, z + length)),
                tiles,
                BUILDING,
            )
        gable = ((x, 0.0, z), (far_x, 0.0, z), (far_x, height, z), (ridge_x, ridge, z), (x, height, z))
        if z > painter.camera.z + 0.5:
            painter.face(gable, shaded(wall, 0.9 * lit(0.0)), BUILDING)
            for storey in range(1, stock.storeys[self.front]):
                low = storey * STOREY + 0.9
                left, right = x + side * 1.6, x + side * 2.6
                pane = ((left, low, z), (right, low, z), (right, low + 1.3, z), (left, low + 1.3, z))
                painter.face(pane, (70, 66, 62), BUILDING)
        paint_wall(painter, stock.facades[self.front], BUILDING, x, z, z + length, height, lit(-side))
        for along, sign in sorted(self.signs, key=lambda item: -item[0]):
            sign.draw(painter, x, z + along, -side)


def build_stock(rng: np.random.Generator, look: Look, lot: float, density: int) -> Stock:
    """Draws the pictures of one street at `density` pixels per metre."""
    bases: tuple[Color, ...] = (
        (70, 92, 140), (95, 120, 150), (150, 175, 190), (200, 210, 215), (85, 95, 105), (130, 150, 165),
        (60, 75, 105), (165, 160, 150),
    )  # fmt: skip
    storeys = tuple(int(n) for n in rng.integers(2, 6, _VARIANTS))
    walls = tuple(
        shaded(bases[int(i)], float(rng.uniform(0.75, 1.1))) for i in rng.choice(len(bases), _VARIANTS, replace=False)
    )
    fronts = tuple(
        pyramid(facade(rng, wall, density, count, lot), 6) for wall, count in zip(walls, storeys, strict=True)
    )
    size = 10 * density
    light = look.lit(0.0) + 0.15
    leafy = tuple(pyramid(leafy_tree(rng, size, shaded(look.foliage, light), look.sun_side), 6) for _ in range(4))
    bare = tuple(pyramid(bare_tree(rng, size, shaded((58, 64, 72), light)), 6) for _ in range(4))
    return Stock(fronts, storeys, walls, leafy, bare)


def random_tree(rng: np.random.Generator, leafy: float, tallest: float = 12.5) -> Tree:
    """A tree of five metres or more."""
    height = float(rng.uniform(5.5, tallest))
    return Tree(
        variant=int(rng.integers(4)),
        leaves=bool(rng.random() < leafy),
        height=height,
        wide=float(rng.uniform(0.55, 0.85)) * height,
        trunk=float(rng.uniform(0.2, 0.4)),
    )


def random_lot(rng: np.random.Generator, garden: bool, leafy: float, length: float) -> Lot:
    """A house or a garden."""
    fenced = rng.random() < (0.8 if garden else 0.12)
    grey = rng.uniform(25, 110)
    trees: tuple[tuple[float, float, Tree], ...] = ()
    signs: tuple[tuple[float, ShopSign], ...] = ()
    if garden:
        count = int(rng.integers(2, 5))
        trees = tuple(
            (float(rng.uniform(1, 12)), float(rng.uniform(0, length)), random_tree(rng, leafy)) for _ in range(count)
        )
    elif rng.random() < 0.45:
        signs = tuple(
            (float(rng.uniform(0.5, length - 0.5)), random_shop_sign(rng)) for _ in range(int(rng.integers(1, 3)))
        )
    return Lot(
        front=-1 if garden else int(rng.integers(_VARIANTS)),
        setback=float(rng.uniform(1.5, 3.0)) if fenced else float(rng.choice((0.0, 0.0, 0.4))),
        roof=float(rng.choice((0.0, 2.0, 3.0))),
        depth=float(rng.uniform(7, 11)),
        trees=trees,
        fence=float(rng.uniform(0.9, 1.5)) if fenced else 0.0,
        pitch=float(rng.uniform(0.11, 0.18)),
        paint=(grey, grey * 1.02, grey),
        signs=signs,
    )
