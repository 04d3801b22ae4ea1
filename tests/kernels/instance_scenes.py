"""Scenes of instances on a grid: logits, boxes and the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels import Geometry, fuse_labels_reference
from errseg_rt.kernels.instances import InstanceSpec

GEOMETRIES = {
    "stride4_aligned": Geometry((17, 33), (65, 129), (65, 129), (65, 129), True),
    "ceil_half_pixel": Geometry((19, 23), (74, 90), (74, 90), (74, 90), False),
    "padded": Geometry((16, 24), (64, 96), (53, 81), (53, 81), False),
    "padded_aligned": Geometry((16, 24), (64, 96), (53, 81), (40, 61), True),
    "frame_larger": Geometry((14, 15), (56, 60), (49, 59), (97, 160), False),
    "frame_smaller": Geometry((23, 31), (92, 124), (90, 119), (13, 19), True),
    "stride1": Geometry((21, 27), (21, 27), (21, 27), (21, 27), False),
    "one_row": Geometry((1, 19), (4, 76), (4, 75), (6, 75), False),
    "one_column": Geometry((19, 1), (73, 3), (73, 3), (73, 3), True),
    "one_pixel": Geometry((1, 1), (4, 4), (3, 4), (3, 5), True),
}


class Scene(NamedTuple):
    """What finding instances takes, and the truth.

    Attributes:
        logits: float32 [C, h, w].
        boxes: float32 [4 T, h, w].
        truth: int32 [h, w], which object each grid pixel shows, 0 for none.
        things: Class ids.
    """

    logits: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int32]
    things: tuple[int, ...]

    def labels(self, geometry: Geometry) -> npt.NDArray[np.uint8]:
        """What fusion makes of the logits."""
        return fuse_labels_reference(self.logits, None, None, geometry).labels


def scene(
    seed: int,
    grid: tuple[int, int],
    count: int,
    *,
    classes: int = 4,
    things: tuple[int, ...] = (1, 3),
    radius: float = 3.0,
    noise: float = 1.0,
    box_noise: float = 0.1,
) -> Scene:
    """Ellipses that may touch and hide each other, with logits and boxes that are somewhat wrong.

    Args:
        seed: Of the scene.
        grid: (h, w).
        count: Of the ellipses.
        classes: Of all; class 0 is what lies behind.
        things: Which of them have instances.
        radius: Half a side of the ellipses, in grid cells.
        noise: Standard deviation of the logits, where the right one is 4 higher.
        box_noise: That of the boxes, as a share of the radius.
    """
    rng = np.random.default_rng([seed, count, classes, *grid])
    logits = noise * rng.standard_normal((classes, *grid))
    boxes = 3 * rng.standard_normal((len(things), 4, *grid))
    truth, label_of = np.zeros(grid, np.int32), np.zeros(grid, np.int32)
    rows, cols = np.mgrid[: grid[0], : grid[1]]
    for number in range(1, count + 1):
        y, x = rng.uniform(0, grid)
        tall, broad = radius * rng.uniform(0.6, 1.4, 2)
        inside = ((rows - y) / tall) ** 2 + ((cols - x) / broad) ** 2 < 1
        truth[inside], label_of[inside] = number, rng.choice(things)
        true = np.stack([y - rows, x - cols, np.full(grid, 2 * tall), np.full(grid, 2 * broad)])
        wrong = box_noise * radius * rng.standard_normal((len(things), 4, *grid))
        boxes = np.where(inside, true + wrong, boxes)
    logits += 4 * (np.arange(classes)[:, None, None] == label_of)
    return Scene(logits.astype(np.float32), boxes.reshape(-1, *grid).astype(np.float32), truth, things)


def spec(things: tuple[int, ...], **changes: object) -> InstanceSpec:
    """A spec for some things, with few hypotheses."""
    return InstanceSpec(**{"classes": things, "most": 100, **changes})
