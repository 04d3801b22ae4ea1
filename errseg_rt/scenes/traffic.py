"""Everything on the street that has an id: lanes of cars, bicyclists and pedestrians."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from errseg_rt.scenes.camera import Camera
from errseg_rt.scenes.people import Person, random_person
from errseg_rt.scenes.vehicles import Vehicle, random_vehicle

SLOT_ZERO = 1 << 40
"""Added to slot numbers, which may be negative, before they seed a generator, which takes none."""
_SLOTS_PER_LANE = 4096
"""Instance ids of a lane come back after this many slots, tens of kilometres later."""


@dataclass(frozen=True)
class Lane:
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
class Mover:
    """What takes a slot of a lane."""

    thing: Vehicle | Person
    x: float
    along: float
    sway: float
    phase: float


@dataclass(frozen=True)
class Placed:
    """A mover at one time; its near end is at `z`."""

    z: float
    lane: Lane
    instance: int
    mover: Mover


class Traffic:
    """Finds what is on the lanes at any time without a simulation: a lane moves as a whole, and each thing sways in it.

    Args:
        keys: Seed of all choices.
        hand: Side on which one drives, -1 left or 1 right.
        lanes: At most 15, as many as instance ids of 16 bits have room for.
    """

    def __init__(self, keys: tuple[int, ...], hand: int, lanes: tuple[Lane, ...]) -> None:
        self._keys = keys
        self._hand = hand
        self.lanes = lanes
        self._at = lru_cache(4096)(self._make)

    def movers(self, camera: Camera, time: float) -> Iterator[Placed]:
        """Everything that is in sight and has an id."""
        for number, lane in enumerate(self.lanes):
            moved = lane.speed * time
            for slot in camera.slots(lane.slot, moved):
                mover = self._at(number, slot)
                if mover is None:
                    continue
                z = slot * lane.slot + mover.along + moved + mover.sway * math.sin(0.5 * time + mover.phase)
                instance = 1 + number * _SLOTS_PER_LANE + slot % _SLOTS_PER_LANE
                yield Placed(z, lane, instance, mover)

    def _make(self, lane_index: int, slot: int) -> Mover | None:
        lane = self.lanes[lane_index]
        rng = np.random.default_rng([*self._keys, lane_index, slot + SLOT_ZERO])
        if rng.random() >= lane.density or (lane.first is not None and slot < lane.first):
            return None
        thing: Vehicle | Person
        if lane.kind == "car":
            along_camera = lane.speed > 0 or (lane.speed == 0 and lane.x * self._hand > 0)
            thing = random_vehicle(rng, 1 if along_camera else -1, parked=lane.speed == 0)
        else:
            thing = random_person(rng, moving=lane.speed != 0.0)
        free = max(lane.slot - (thing.length if isinstance(thing, Vehicle) else 1.0), 0.0)
        return Mover(
            thing=thing,
            x=lane.x + float(rng.uniform(-lane.spread, lane.spread)),
            along=float(rng.uniform(0.1, 0.9)) * free,
            sway=0.0 if lane.speed == 0 else min(0.25 * free, 2.0) * float(rng.uniform(0.3, 1.0)),
            phase=float(rng.uniform(0, 2 * math.pi)),
        )


def plan_lanes(rng: np.random.Generator, hand: int, road: float, walk: float, speed: float) -> tuple[Lane, ...]:
    """Lanes of a street.

    Args:
        rng: Source of all choices.
        hand: Side on which one drives, -1 left or 1 right.
        road: Half the width of the road in metres.
        walk: Width of a pavement in metres.
        speed: Of the camera, in metres per second.
    """
    busy, crowd = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.25, 0.75))
    parking = rng.choice(3, p=(0.3, 0.45, 0.25))
    parked = float(rng.uniform(0.35, 0.8))
    wheels = float(rng.uniform(0.3, 0.6))
    edge = road + 0.5 * walk
    lanes = [
        Lane("car", hand * (road - 0.95), 0.05, 0.0, 7.0, 0.7 * parked if parking == 1 else 0.0),
        Lane("car", -hand * (road - 0.95), 0.05, 0.0, 7.0, parked if parking == 0 else 0.0),
        Lane("car", -hand * 0.3 * road, 0.15, -float(rng.uniform(6, 11)), 24.0, busy),
        Lane("car", hand * 0.3 * road, 0.15, speed, 15.0, 0.7, first=1),
        Lane("bicyclist", hand * (road - 0.6), 0.2, float(rng.uniform(3.5, 5.0)), 13.0, 0 if parking == 1 else wheels),
        Lane(
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
            lanes.append(Lane("pedestrian", side * edge, 0.35 * walk, pace, 6.0, crowd * (0.5 if way else 0.25)))
    return tuple(lanes)
