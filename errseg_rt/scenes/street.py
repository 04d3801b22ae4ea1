"""A street that goes on for ever: what stands where, what moves how, and where the camera is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.atmosphere import Lens, paint_sky, sky_panorama
from errseg_rt.scenes.camera import Camera
from errseg_rt.scenes.canvas import Canvas
from errseg_rt.scenes.furniture import KINDS, Furniture, random_furniture
from errseg_rt.scenes.ground import random_ground
from errseg_rt.scenes.look import random_look
from errseg_rt.scenes.lots import Lot, Tree, build_stock, random_lot, random_tree
from errseg_rt.scenes.painter import Painter
from errseg_rt.scenes.shadows import paint_shadows
from errseg_rt.scenes.skyline import paint_skyline, random_skyline
from errseg_rt.scenes.surfaces import paint_fence
from errseg_rt.scenes.traffic import SLOT_ZERO, Placed, Traffic, plan_lanes
from errseg_rt.scenes.vehicles import Vehicle

_STREET, _LOTS, _KERB, _TREES, _LANES, _NOISE, _RAILS = range(7)
"""Sources of randomness, one per purpose."""
_KERB_SLOT, _TREE_SLOT, _RAIL_SLOT = 7.0, 9.0, 8.0
"""Metres along the street per place for furniture, a tree, a guard rail."""
_SMEAR_DEPTH = 16.0
"""Metres ahead of what the motion blur is right for."""


@dataclass(frozen=True)
class SceneFrame:
    """One frame of a street and the truth about it.

    Attributes:
        frame: Picture, BGR `uint8 [H, W, 3]`.
        labels: Ids of `errseg_rt.bundle.classes.CAMVID`, `uint8 [H, W]`; every pixel has one.
        instances: `uint16 [H, W]`, 0 for stuff, else an id that stays with a car, pedestrian or bicyclist.
    """

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint16]


class StreetScene:
    """One seeded street; the same (seed, height, width, fps) gives the same clip bit for bit.

    Every frame is computed on its own, so frames may be asked for in any order.

    Args:
        seed: Not negative.
        height: Rows of a frame, 32 to 8192.
        width: Columns of a frame, 32 to 8192.
        fps: Frames per second of the clip.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(self, seed: int, height: int = 360, width: int = 480, fps: float = 15.0) -> None:
        if seed < 0:
            raise ValueError(f"the seed of a scene is not negative, got {seed}")
        if not (32 <= height <= 8192 and 32 <= width <= 8192):
            raise ValueError(f"a frame has 32 to 8192 rows and columns, got {height} x {width}")
        if not (fps > 0 and math.isfinite(fps)):
            raise ValueError(f"frames per second are positive and finite, got {fps}")
        self.seed = seed
        self.height = height
        self.width = width
        self.fps = fps

        rng = self._rng(_STREET)
        self._look = random_look(rng)
        self._hand = -1 if rng.random() < 0.75 else 1
        self._road = float(rng.uniform(3.8, 4.9))
        self._pavement = float(rng.uniform(2.6, 4.0))
        self._eye = float(rng.uniform(1.15, 1.6))
        self._speed = float(rng.uniform(5.0, 11.0))
        self._yaw, self._pitch = float(rng.normal(0, 0.025)), float(rng.uniform(-0.02, 0.035))
        self._bend, self._bend_length = float(rng.uniform(0, 1 / 500)), float(rng.uniform(60, 160))
        self._phases = [float(p) for p in rng.uniform(0, 2 * math.pi, 6)]
        self._gardens = float(rng.choice((0.1, 0.3, 0.55)))
        self._street_trees = float(rng.uniform(0.05, 0.5))
        self._lot = float(rng.uniform(8, 15))
        lanes = plan_lanes(rng, self._hand, self._road, self._pavement, self._speed)
        self._traffic = Traffic((seed, _LANES), self._hand, lanes)
        self._rails, grey = float(rng.choice((0.05, 0.15, 0.3))), float(rng.uniform(50, 150))
        self._rail_paint = (grey, grey, grey)
        detail = min(max(min(height, width) / 360.0, 0.5), 2.0)
        self._ground = random_ground(rng, self._road, self._pavement, round(36 * detail))
        self._stock = build_stock(rng, self._look, self._lot, round(32 * detail))
        self._sky = sky_panorama(rng, self._look, height, width)
        self._lens = Lens(rng, self._look, height, width)
        self._skyline = random_skyline(rng)

        self._lot_at = lru_cache(1024)(self._make_lot)
        self._kerb_at = lru_cache(1024)(self._make_kerb)
        self._tree_at = lru_cache(1024)(self._make_tree)
        self._rail_at = lru_cache(1024)(self._make_rail)

    def frame(self, index: int) -> SceneFrame:
        """Renders frame `index`, counted from 0.

        Raises:
            ValueError: `index` is negative.
        """
        if index < 0:
            raise ValueError(f"frames are counted from 0, got {index}")
        time = index / self.fps
        camera = self._camera(time)
        canvas = Canvas(self.height, self.width)
        painter = Painter(canvas, camera, self._look)
        paint_sky(canvas, self._sky, camera.horizon, camera.center)
        paint_skyline(canvas, camera, self._skyline)
        movers = list(self._traffic.movers(camera, time))
        self._paint_ground(painter, movers)
        self._paint_lots(painter)
        self._paint_things(painter, movers, time)
        motion = self._speed / self.fps / _SMEAR_DEPTH
        picture = self._lens.develop(canvas, self._rng(_NOISE, index), motion, camera.center, camera.horizon)
        return SceneFrame(picture, canvas.labels(), canvas.instances())

    def _rng(self, *keys: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *keys])

    def _camera(self, time: float) -> Camera:
        """Where the camera is and looks at `time` seconds."""
        focal = 1.05 * math.sqrt(self.width * self.height * 4 / 3)
        a, b, c, d, e, f = self._phases
        z = self._speed * time
        yaw = self._yaw + 0.006 * math.sin(0.7 * time + a) + 0.0015 * math.sin(5.1 * time + b)
        pitch = self._pitch + 0.003 * math.sin(2.3 * time + c) + 0.0015 * math.sin(7.7 * time + d)
        return Camera(
            focal=focal,
            center=0.5 * self.width + focal * yaw,
            horizon=0.49 * self.height + focal * pitch,
            eye=self._eye + 0.015 * math.sin(6.1 * time + e),
            x=self._hand * 0.3 * self._road + 0.12 * math.sin(0.4 * time + f),
            z=z,
            bend=self._bend * math.sin(z / self._bend_length + a),
        )

    def _make_lot(self, side: int, slot: int) -> Lot:
        run = self._rng(_LOTS, side + 1, 0, slot // 2 + SLOT_ZERO)
        garden = bool(run.random() < self._gardens)
        return random_lot(self._rng(_LOTS, side + 1, 1, slot + SLOT_ZERO), garden, self._look.leafy, self._lot)

    def _make_kerb(self, side: int, slot: int) -> tuple[float, Furniture] | None:
        rng = self._rng(_KERB, side + 1, slot + SLOT_ZERO)
        if slot % 4 == (0 if side > 0 else 2):
            return 1.0, random_furniture(rng, KINDS[0])
        if rng.random() < 0.45:
            return None
        kind = KINDS[int(rng.choice(np.arange(1, 7), p=(0.22, 0.15, 0.17, 0.2, 0.08, 0.18)))]
        return float(rng.uniform(0, 6)), random_furniture(rng, kind)

    def _make_tree(self, side: int, slot: int) -> Tree | None:
        rng = self._rng(_TREES, side + 1, slot + SLOT_ZERO)
        return random_tree(rng, self._look.leafy, 7.5) if rng.random() < self._street_trees else None

    def _make_rail(self, side: int, slot: int) -> bool:
        return bool(self._rng(_RAILS, side + 1, slot // 2 + SLOT_ZERO).random() < self._rails)

    def _paint_ground(self, painter: Painter, movers: list[Placed]) -> None:
        slots = painter.camera.slots(self._lot)
        grassy = np.array([[self._lot_at(side, slot).front < 0 for slot in slots] for side in (-1, 1)])
        self._ground.paint(painter, grassy, self._lot, slots.start)
        sunny = grassy[(self._look.sun_side + 1) // 2]
        houses = [(n * self._lot, (n + 1) * self._lot) for n, green in zip(slots, sunny, strict=True) if not green]
        paint_shadows(painter, movers, houses, self._road + self._pavement)

    def _paint_lots(self, painter: Painter) -> None:
        edge = self._road + self._pavement
        for slot in reversed(painter.camera.slots(self._lot)):
            for side in (-1, 1):
                self._lot_at(side, slot).draw(painter, self._stock, side, edge, slot * self._lot, self._lot)

    def _paint_things(self, painter: Painter, movers: list[Placed], time: float) -> None:
        """Draws what stands or moves between the houses, far things first."""
        jobs: list[tuple[float, Callable[[], None]]] = []
        camera, kerb = painter.camera, self._road + 0.45
        for side in (-1, 1):
            for slot in camera.slots(_KERB_SLOT):
                standing = self._kerb_at(side, slot)
                if standing is not None:
                    along, item = standing
                    z = slot * _KERB_SLOT + along
                    jobs.append((z, partial(item.draw, painter, side * kerb, z, -side)))
            for slot in camera.slots(_TREE_SLOT):
                tree = self._tree_at(side, slot)
                if tree is not None:
                    z = slot * _TREE_SLOT + 4.0
                    jobs.append((z, partial(tree.draw, painter, self._stock, side * (kerb + 0.4), z)))
            for slot in camera.slots(_RAIL_SLOT):
                if self._rail_at(side, slot):
                    z0, z1 = slot * _RAIL_SLOT, (slot + 1) * _RAIL_SLOT
                    x = side * (self._road + 0.25)
                    jobs.append((z1, partial(paint_fence, painter, x, z0, z1, 1.05, 0.13, self._rail_paint)))
        for placed in movers:
            thing, x, z = placed.mover.thing, placed.mover.x, placed.z
            if isinstance(thing, Vehicle):
                jobs.append((z, partial(thing.draw, painter, x, z, placed.instance)))
            elif placed.lane.kind == "bicyclist":
                way = 1 if placed.lane.speed > 0 else -1
                jobs.append((z, partial(thing.ride, painter, x, z, time, way, placed.instance)))
            else:
                jobs.append((z, partial(thing.walk, painter, x, z, time, placed.instance)))
        for _, draw in sorted(jobs, key=lambda job: -job[0]):
            draw()


def render_clip(seed: int, length: int, height: int = 360, width: int = 480, fps: float = 15.0) -> Iterator[SceneFrame]:
    """The first `length` frames of `StreetScene(seed, height, width, fps)`."""
    scene = StreetScene(seed, height, width, fps)
    for index in range(length):
        yield scene.frame(index)
