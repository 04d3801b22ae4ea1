"""A street that goes on for ever: what stands where, what moves how, and where the camera is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from errseg_rt.scenes.atmosphere import Lens, paint_sky, sky_panorama
from errseg_rt.scenes.camera import FAR, Camera
from errseg_rt.scenes.canvas import BUILDING, TREE, Canvas, tag
from errseg_rt.scenes.furniture import KINDS, Furniture, random_furniture
from errseg_rt.scenes.ground import random_ground
from errseg_rt.scenes.look import random_look
from errseg_rt.scenes.lots import Lot, Tree, build_stock, random_lot, random_tree
from errseg_rt.scenes.painter import Painter
from errseg_rt.scenes.people import Person, random_person
from errseg_rt.scenes.surfaces import paint_fence
from errseg_rt.scenes.vehicles import Vehicle, random_vehicle

_STREET, _LOTS, _KERB, _TREES, _LANES, _NOISE, _RAILS = range(7)
"""Sources of randomness, one per purpose."""
_KERB_SLOT, _TREE_SLOT, _RAIL_SLOT = 7.0, 9.0, 8.0
_SLOT_ZERO = 1 << 40
_SLOTS_PER_LANE = 4096
"""Instance ids of a lane come back after this many slots, kilometres later."""


@dataclass(frozen=True)
class SceneFrame:
    """One frame of a street and the truth about it.

    Attributes:
        frame: Picture, BGR `uint8 [H, W, 3]`.
        labels: Ids of `errseg_rt.classes.CAMVID`, `uint8 [H, W]`; every pixel has one.
        instances: `uint16 [H, W]`, 0 for stuff, else an id that stays with a car, pedestrian or bicyclist.
    """

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint16]


@dataclass(frozen=True)
class _Lane:
    """Things that move along the street at one speed, at most one per slot.

    Attributes:
        kind: "car", "pedestrian" or "bicyclist".
        x: Metres right of the road's middle.
        spread: Metres by which things deviate from `x`.
        speed: Metres per second along z.
        slot: Metres per slot.
        density: Share of slots taken.
        first: Slots before this one are empty; None for no such limit.
    """

    kind: str
    x: float
    spread: float
    speed: float
    slot: float
    density: float
    first: int | None = None


@dataclass(frozen=True)
class _Mover:
    """What takes a slot of a lane."""

    thing: Vehicle | Person
    x: float
    along: float
    sway: float
    phase: float


@dataclass(frozen=True)
class _Placed:
    """A mover at one time; its near end is at `z`."""

    z: float
    lane: _Lane
    instance: int
    mover: _Mover


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
        self._road = float(rng.uniform(4.0, 5.2))
        self._pavement = float(rng.uniform(2.4, 3.8))
        self._eye = float(rng.uniform(1.15, 1.6))
        self._speed = float(rng.uniform(5.0, 11.0))
        self._yaw, self._pitch = float(rng.normal(0, 0.025)), float(rng.uniform(-0.02, 0.035))
        self._bend, self._bend_length = float(rng.uniform(0, 1 / 500)), float(rng.uniform(60, 160))
        self._phases = [float(p) for p in rng.uniform(0, 2 * math.pi, 6)]
        self._gardens = float(rng.choice((0.1, 0.3, 0.55)))
        self._street_trees = float(rng.uniform(0.05, 0.5))
        self._lot = float(rng.uniform(8, 15))
        self._lanes = self._plan_lanes(rng)
        self._rails, grey = float(rng.choice((0.05, 0.15, 0.3))), float(rng.uniform(50, 150))
        self._rail_paint = (grey, grey, grey)
        detail = min(max(min(height, width) / 360.0, 0.5), 2.0)
        self._ground = random_ground(rng, self._road, self._pavement, round(36 * detail))
        self._stock = build_stock(rng, self._look, self._lot, round(32 * detail))
        self._sky = sky_panorama(rng, self._look, height, width)
        self._lens = Lens(rng, self._look, height, width)
        self._skyline = self._draw_skyline(rng)

        self._lot_at = lru_cache(1024)(self._make_lot)
        self._kerb_at = lru_cache(1024)(self._make_kerb)
        self._tree_at = lru_cache(1024)(self._make_tree)
        self._rail_at = lru_cache(1024)(self._make_rail)
        self._mover_at = lru_cache(4096)(self._make_mover)

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
        self._paint_skyline(canvas, camera)
        movers = list(self._movers(camera, time))
        self._paint_ground(painter, movers)
        self._paint_lots(painter)
        self._paint_things(painter, movers, time)
        motion = self._speed / self.fps / 12.0
        picture = self._lens.develop(canvas, self._rng(_NOISE, index), motion, camera.center, camera.horizon)
        return SceneFrame(picture, canvas.labels(), canvas.instances())

    def _rng(self, *keys: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *keys])

    def _plan_lanes(self, rng: np.random.Generator) -> tuple[_Lane, ...]:
        hand, road, walk = self._hand, self._road, self._pavement
        busy, crowd = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.25, 0.75))
        parking = rng.choice(3, p=(0.3, 0.45, 0.25))
        parked = float(rng.uniform(0.35, 0.8))
        wheels = float(rng.uniform(0.3, 0.6))
        edge = road + 0.5 * walk
        lanes = [
            _Lane("car", hand * (road - 0.95), 0.05, 0.0, 7.0, 0.7 * parked if parking == 1 else 0.0),
            _Lane("car", -hand * (road - 0.95), 0.05, 0.0, 7.0, parked if parking == 0 else 0.0),
            _Lane("car", -hand * 0.36 * road, 0.15, -float(rng.uniform(6, 11)), 24.0, busy),
            _Lane("car", hand * 0.36 * road, 0.15, self._speed, 15.0, 0.7, first=1),
            _Lane(
                "bicyclist", hand * (road - 0.6), 0.2, float(rng.uniform(3.5, 5.0)), 13.0, 0 if parking == 1 else wheels
            ),
            _Lane(
                "bicyclist",
                -hand * (road - 0.7),
                0.2,
                -float(rng.uniform(3.0, 5.0)),
                13.0,
                0 if parking == 0 else wheels,
            ),
        ]
        for side in (-1, 1):
            for way in (-1.0, 1.0, 0.0):
                pace = way * float(rng.uniform(1.0, 1.6))
                lanes.append(_Lane("pedestrian", side * edge, 0.35 * walk, pace, 6.0, crowd * (0.5 if way else 0.25)))
        return tuple(lanes)

    def _draw_skyline(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Far roofs and tree tops: `float32 [2, 512]`, metres high at 150 m, and whether it is a tree."""
        heights, trees = np.zeros(512, np.float32), np.zeros(512, np.float32)
        start = 0
        while start < 512:
            stop = start + int(rng.integers(3, 14))
            is_tree = bool(rng.random() < 0.5)
            level = rng.uniform(3, 11)
            ragged = rng.normal(0, 1.0, stop - start) if is_tree else np.zeros(stop - start)
            heights[start:stop] = (level + ragged)[: 512 - start]
            trees[start:stop] = is_tree
            start = stop
        return np.stack([heights, trees])

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
            x=self._hand * 0.36 * self._road + 0.12 * math.sin(0.4 * time + f),
            z=z,
            bend=self._bend * math.sin(z / self._bend_length + a),
        )

    def _slots(self, camera: Camera, slot: float, moved: float = 0.0) -> range:
        """Slots of a lane that lie between the camera and the horizon."""
        origin = camera.z - moved
        return range(math.floor((origin - 15.0) / slot), math.ceil((origin + FAR) / slot))

    def _make_lot(self, side: int, slot: int) -> Lot:
        run = self._rng(_LOTS, side + 1, 0, slot // 2 + _SLOT_ZERO)
        garden = bool(run.random() < self._gardens)
        return random_lot(self._rng(_LOTS, side + 1, 1, slot + _SLOT_ZERO), garden, self._look.leafy, self._lot)

    def _make_kerb(self, side: int, slot: int) -> tuple[float, Furniture] | None:
        rng = self._rng(_KERB, side + 1, slot + _SLOT_ZERO)
        if slot % 4 == (0 if side > 0 else 2):
            return 1.0, random_furniture(rng, KINDS[0])
        if rng.random() < 0.4:
            return None
        kind = KINDS[int(rng.choice(np.arange(1, 7), p=(0.22, 0.15, 0.17, 0.2, 0.08, 0.18)))]
        return float(rng.uniform(0, 6)), random_furniture(rng, kind)

    def _make_tree(self, side: int, slot: int) -> Tree | None:
        rng = self._rng(_TREES, side + 1, slot + _SLOT_ZERO)
        return random_tree(rng, self._look.leafy, 7.5) if rng.random() < self._street_trees else None

    def _make_rail(self, side: int, slot: int) -> bool:
        return bool(self._rng(_RAILS, side + 1, slot // 2 + _SLOT_ZERO).random() < self._rails)

    def _make_mover(self, lane_index: int, slot: int) -> _Mover | None:
        lane = self._lanes[lane_index]
        rng = self._rng(_LANES, lane_index, slot + _SLOT_ZERO)
        if rng.random() >= lane.density or (lane.first is not None and slot < lane.first):
            return None
        thing: Vehicle | Person
        if lane.kind == "car":
            along_camera = lane.speed > 0 or (lane.speed == 0 and lane.x * self._hand > 0)
            thing = random_vehicle(rng, 1 if along_camera else -1, parked=lane.speed == 0)
        else:
            thing = random_person(rng, moving=lane.speed != 0.0)
        free = max(lane.slot - (thing.length if isinstance(thing, Vehicle) else 1.0), 0.0)
        return _Mover(
            thing=thing,
            x=lane.x + float(rng.uniform(-lane.spread, lane.spread)),
            along=float(rng.uniform(0.1, 0.9)) * free,
            sway=0.0 if lane.speed == 0 else min(0.25 * free, 2.0) * float(rng.uniform(0.3, 1.0)),
            phase=float(rng.uniform(0, 2 * math.pi)),
        )

    def _movers(self, camera: Camera, time: float) -> Iterator[_Placed]:
        """Everything that is in sight and has an id."""
        for number, lane in enumerate(self._lanes):
            moved = lane.speed * time
            for slot in self._slots(camera, lane.slot, moved):
                mover = self._mover_at(number, slot)
                if mover is None:
                    continue
                z = slot * lane.slot + mover.along + moved + mover.sway * math.sin(0.5 * time + mover.phase)
                instance = 1 + number * _SLOTS_PER_LANE + slot % _SLOTS_PER_LANE
                yield _Placed(z, lane, instance, mover)

    def _paint_skyline(self, canvas: Canvas, camera: Camera) -> None:
        slopes = (np.arange(canvas.width) - camera.center) / camera.focal
        heights, trees = self._skyline[:, (slopes * 160.0 + 256.0).astype(int) % 512]
        tops = camera.horizon - heights * camera.focal / FAR
        top = max(int(tops.min()), 0)
        rows = np.arange(top, max(min(int(camera.horizon) + 2, canvas.height), top))
        mask = rows[:, None] >= tops[None]
        shade = np.where(trees[:, None] > 0, (60, 75, 70), (105, 112, 120)) * (0.8 + 0.05 * heights[:, None] % 0.4)
        color = np.broadcast_to(shade.astype(np.uint8)[None], (len(rows), canvas.width, 3))
        tags = np.where(trees > 0, tag(TREE, FAR), tag(BUILDING, FAR)).astype(np.int32)
        canvas.paint(top, 0, mask, color, tags)

    def _paint_ground(self, painter: Painter, movers: list[_Placed]) -> None:
        slots = self._slots(painter.camera, self._lot)
        grassy = np.array([[self._lot_at(side, slot).front < 0 for slot in slots] for side in (-1, 1)])
        self._ground.paint(painter, grassy, self._lot, slots.start)
        self._paint_shadows(painter, movers)

    def _paint_shadows(self, painter: Painter, movers: list[_Placed]) -> None:
        """Darkens the ground under and beside what stands on it."""
        camera, look = painter.camera, self._look
        mask = np.zeros((self.height, self.width), np.uint8)
        reach = 3.5 * look.sun_side * -1.0
        edge = self._road + self._pavement
        if look.sun > 0.5:
            side = look.sun_side
            for slot in self._slots(camera, self._lot):
                if self._lot_at(side, slot).front >= 0:
                    z0, z1 = slot * self._lot, (slot + 1) * self._lot
                    x0, x1 = side * edge, side * edge + reach * 1.3
                    _darken(mask, camera, [(x0, 0, z0), (x1, 0, z0 + 2), (x1, 0, z1 + 2), (x0, 0, z1)], 110)
        for placed in movers:
            thing = placed.mover.thing
            x, z = placed.mover.x, placed.z
            if isinstance(thing, Vehicle):
                cast = [
                    (a + (0.5 * reach * look.sun if a * reach > x * reach else 0.0), b, c)
                    for a, b, c in thing.footprint(x, z)
                ]
                _darken(mask, camera, cast, 90 + int(40 * look.sun))
                _darken(mask, camera, thing.footprint(x, z), 185)
            else:
                _darken(mask, camera, [(x - 0.2, 0, z), (x + 0.2, 0, z), (x + 0.2 + reach * look.sun, 0, z + 0.6)], 70)
        top = max(int(camera.horizon), 0)
        if top >= self.height:
            return
        dark = cv2.GaussianBlur(mask[top:], (0, 0), max(self.height / 300.0, 0.5))
        light = 1.0 - np.asarray(dark, np.float32) / 255.0
        ground = painter.canvas.color[top:]
        ground[:] = cv2.blendLinear(ground, np.zeros_like(ground), light, 1.0 - light)

    def _paint_lots(self, painter: Painter) -> None:
        edge = self._road + self._pavement
        for slot in reversed(self._slots(painter.camera, self._lot)):
            for side in (-1, 1):
                self._lot_at(side, slot).draw(painter, self._stock, side, edge, slot * self._lot, self._lot)

    def _paint_things(self, painter: Painter, movers: list[_Placed], time: float) -> None:
        """Draws what stands or moves between the houses, far things first."""
        jobs: list[tuple[float, Callable[[], None]]] = []
        camera, kerb = painter.camera, self._road + 0.45
        for side in (-1, 1):
            for slot in self._slots(camera, _KERB_SLOT):
                standing = self._kerb_at(side, slot)
                if standing is not None:
                    along, item = standing
                    z = slot * _KERB_SLOT + along
                    jobs.append((z, partial(item.draw, painter, side * kerb, z, -side)))
            for slot in self._slots(camera, _TREE_SLOT):
                tree = self._tree_at(side, slot)
                if tree is not None:
                    z = slot * _TREE_SLOT + 4.0
                    jobs.append((z, partial(tree.draw, painter, self._stock, side * (kerb + 0.4), z)))
            for slot in self._slots(camera, _RAIL_SLOT):
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


def _darken(mask: NDArray[np.uint8], camera: Camera, points: list[tuple[float, float, float]], depth: int) -> None:
    """Adds a shadow on the ground to `mask`."""
    pixels = np.asarray(camera.polygon(points))
    if len(pixels) >= 3:
        cv2.fillPoly(mask, [np.clip(np.rint(pixels), -30000, 30000).astype(np.int32)], (depth,))


def render_clip(seed: int, length: int, height: int = 360, width: int = 480, fps: float = 15.0) -> Iterator[SceneFrame]:
    """The first `length` frames of `StreetScene(seed, height, width, fps)`."""
    scene = StreetScene(seed, height, width, fps)
    for index in range(length):
        yield scene.frame(index)
