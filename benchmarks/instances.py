"""How long does it take to tell instances apart, against the same steps in NumPy, and when boxes are noise?

What the options cost that go beyond the paper, hops and agreement, is told in time of the processor.

python -m benchmarks.instances
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.report import Row, compare, finish
from errseg_rt.bundle.classes import CAMVID, CITYSCAPES, ClassSet
from errseg_rt.frames.instances import Instances
from errseg_rt.kernels import Geometry, InstanceMap, InstanceSpec, fuse_labels, instances, instances_reference, upsample
from errseg_rt.system.cores import usable_cores

CORES = usable_cores()
Map = InstanceMap[npt.NDArray[Any]]


class Scene(NamedTuple):
    """What instances are found by.

    Attributes:
        classes: What the ids mean.
        logits: `float32 [C, h, w]`.
        boxes: `float32 [4 T, h, w]`.
        labels: `uint8 [H, W]`.
        error: Error probability, `float32 [h, w]`.
        geometry: How the frame lies on the grid.
        spec: Which classes are things.
    """

    classes: ClassSet
    logits: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    error: npt.NDArray[np.float32]
    geometry: Geometry
    spec: InstanceSpec

    def ours(self) -> Map:
        """By the kernel for CPUs."""
        return instances(*self._operands(), threads=CORES)

    def theirs(self) -> Map:
        """By the definition."""
        return instances_reference(*self._operands())

    def measured(self) -> Instances:
        """The kernel's, with areas, boxes and mean error probabilities: all that a frame costs more."""
        found = self.ours()
        count, error_map = int(found.count), upsample(self.error, self.geometry, CORES)
        return Instances.of(found.map, found.classes[:count], found.scores[:count], self.classes, error_map)

    def with_options(self) -> Scene:
        """The same with boxes as seen from their centre, and agreement of boxes in the confidence."""
        return self._replace(spec=replace(self.spec, hops=4, agreement=True))

    def _operands(self) -> tuple[Any, ...]:
        return self.logits, None, None, self.boxes, self.labels, self.geometry, self.spec


def objects(classes: ClassSet, geometry: Geometry, spec: InstanceSpec, count: int, radius: float) -> Scene:
    """Ellipses, some of them hidden by others, with logits and boxes that are somewhat wrong.

    Args:
        classes: What the ids mean.
        geometry: How the frame lies on the grid.
        spec: Which classes are things.
        count: Ellipses.
        radius: Half a side of theirs, in grid cells.
    """
    rng, grid, things = np.random.default_rng(0), geometry.grid_size, len(spec.classes)
    rows, cols = np.mgrid[: grid[0], : grid[1]]
    boxes, label_of = 3 * rng.standard_normal((things, 4, *grid)), np.zeros(grid, np.int64)
    for _ in range(count):
        y, x = rng.uniform(0, grid)
        tall, broad = radius * rng.uniform(0.6, 1.4, 2)
        mask = ((rows - y) / tall) ** 2 + ((cols - x) / broad) ** 2 < 1
        true = np.stack([y - rows, x - cols, np.full(grid, 2 * tall), np.full(grid, 2 * broad)])[:, mask]
        label_of[mask] = rng.choice(spec.classes)
        boxes[:, :, mask] = true + 0.05 * radius * rng.standard_normal((things, *true.shape))
    logits = rng.standard_normal((len(classes), *grid)) + 4 * (np.arange(len(classes))[:, None, None] == label_of)
    return _scene(classes, logits, boxes, geometry, spec)


def street_scene(frame: tuple[int, int] = (1024, 2048), count: int = 100) -> Scene:
    """Objects of Cityscapes' things, on a grid of a quarter of the frame's height and width."""
    geometry = Geometry((frame[0] // 4, frame[1] // 4), frame, frame, frame, False)
    return objects(CITYSCAPES, geometry, InstanceSpec(tuple(range(11, 19)), least_pixels=4), count, 14)


def nuclei_scene(frame: tuple[int, int] = (520, 696), count: int = 300) -> Scene:
    """Nuclei, on a grid of half the frame's height and width: a network sees it at twice its size, at stride 4."""
    grid, seen = (frame[0] // 2, frame[1] // 2), (2 * frame[0], 2 * frame[1])
    geometry, classes = Geometry(grid, seen, seen, frame, False), ClassSet(("background", "nucleus"), CAMVID.colors[:2])
    return objects(classes, geometry, InstanceSpec((1,), least_pixels=4), count, 9)


def noise(classes: ClassSet, geometry: Geometry, spec: InstanceSpec) -> Scene:
    """Every pixel may be of any class, and has a box of any size anywhere around."""
    rng, grid, things = np.random.default_rng(1), geometry.grid_size, len(spec.classes)
    boxes = rng.uniform(-60, 60, (things, 4, *grid))
    boxes[:, 2:] = np.exp(rng.uniform(0, 5.5, (things, 2, *grid)))
    return _scene(classes, rng.standard_normal((len(classes), *grid)), boxes, geometry, spec)


def _scene(
    classes: ClassSet, logits: npt.NDArray[Any], boxes: npt.NDArray[Any], geometry: Geometry, spec: InstanceSpec
) -> Scene:
    wide, grid = logits.astype(np.float32), geometry.grid_size
    labels = np.asarray(fuse_labels(wide, None, None, geometry).labels)
    error = np.random.default_rng(2).random(grid, np.float32)
    return Scene(classes, wide, boxes.reshape(-1, *grid).astype(np.float32), labels, error, geometry, spec)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    args, rest = parser.parse_known_args()
    finish(rows(args.pairs), "instances", rest)


def rows(pairs: int) -> list[Row]:
    """Time both, after checking that they are equal."""
    street = street_scene()
    scenes = {
        "1024x2048_100_objects": street,
        "520x696_300_nuclei": nuclei_scene(),
        "1024x2048_noise": noise(street.classes, street.geometry, street.spec),
    }
    found = []
    for name, scene in scenes.items():
        _check(scene.ours(), scene.theirs(), name)
        size = "x".join(map(str, scene.geometry.grid_size))
        note = f"grid {size}, {int(scene.ours().count)} instances, {CORES} threads"
        found.append(compare(f"instances/vs_numpy@{name}", scene.ours, scene.theirs, pairs=pairs, note=note))
        measured = compare(f"instances/measured@{name}", scene.measured, scene.ours, pairs=3 * pairs, note=note)
        found.append(
            Row(measured.name, measured.value, "ms", note=f"{note}; with areas, boxes, mean error probability")
        )
        more = scene.with_options()
        _check(more.ours(), more.theirs(), f"{name}, with options")
        options = f"instances/options@{name}"
        note = f"{note}; hops 4 and agreement against neither, in time of the processor"
        found.append(compare(options, more.ours, scene.ours, pairs=3 * pairs, note=note, clock=time.process_time))
    return found


def _check(ours: Map, theirs: Map, name: str) -> None:
    """Raise where the maps differ at all."""
    count = int(ours.count)
    is_same = np.array_equal(ours.map, theirs.map) and np.array_equal(ours.scores[:count], theirs.scores[:count])
    if count != int(theirs.count) or not is_same:
        raise RuntimeError(f"{name}: the maps differ; nothing was timed")


if __name__ == "__main__":
    main()
