"""The embedded cascade with boxes: a front graph that tells where the instances of a rendered scene are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.instance_spec import InstanceSpec
from errseg_rt.engines.engine import Engine, TensorSpec

THINGS = ("car", "pedestrian", "bicyclist")
"""Those of the classes that rendered scenes have ids of."""
LARGE = ("sky", "building", "road")
"""As many that the embedded network sees in small frames."""
BLOCK = 6
"""Grid cells of a side of `blocks`."""


def boxed_bundle(**changes: Any) -> Bundle:
    """The embedded bundle, as if it had boxes, for frames as they are.

    Args:
        changes: Fields of the spec by name; `things`, names of classes.
    """
    embedded = Bundle.open("camvid")
    names = embedded.manifest.classes.names
    things = tuple(sorted(names.index(name) for name in changes.pop("things", THINGS)))
    taken = replace(embedded.manifest.input, scale=1.0, enlarge_up_to=0)
    spec = InstanceSpec(**{"classes": things, "most": 40, **changes})
    return replace(embedded, manifest=replace(embedded.manifest, instances=spec, input=taken))


def true_boxes(ids: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The box of the instance that each pixel of a grid shows, `[4, h, w]`; zeros where it shows none."""
    rows, cols = np.mgrid[: ids.shape[0], : ids.shape[1]].astype(np.float32)
    boxes = np.zeros((4, *ids.shape), np.float32)
    for number in np.unique(ids[ids > 0]):
        mask = ids == number
        i, j = np.nonzero(mask)
        y, x = (i.min() + i.max()) / 2, (j.min() + j.max()) / 2
        true = (y - rows, x - cols, np.full_like(rows, np.ptp(i) + 1), np.full_like(rows, np.ptp(j) + 1))
        boxes[:, mask] = np.stack(true)[:, mask]
    return boxes


class Boxed:
    """A front engine that also gives boxes, the same for every thing.

    Args:
        engine: The front engine.
        boxes: Gives them, `float32 [4 T, h, w]`, for a grid's size.
        taken: Makes arrays of the engine's place of NumPy's.
        channels: 4 T.
    """

    def __init__(
        self,
        engine: Engine,
        boxes: Callable[[tuple[int, int]], npt.NDArray[np.float32]],
        channels: int = 4 * len(THINGS),
        taken: Callable[[npt.NDArray[Any]], Any] = lambda array: array,
    ) -> None:
        self.inputs = engine.inputs
        self.outputs = {**engine.outputs, "boxes": TensorSpec("float32", (None, channels, None, None))}
        self._engine, self._boxes, self._taken = engine, boxes, taken

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        found = self._engine.run(feeds)
        grid = tuple(int(side) for side in found["logits"].shape[2:])
        return {**found, "boxes": self._taken(np.ascontiguousarray(self._boxes(grid)[None]))}


def boxes_of(ids: npt.NDArray[Any], stride: int = 4) -> Callable[[tuple[int, int]], npt.NDArray[np.float32]]:
    """Boxes for a frame's ids, `[H, W]`, on a grid of a stride whose lines lie on pixels."""

    def boxes(grid: tuple[int, int]) -> npt.NDArray[np.float32]:
        rows, cols = (
            np.minimum(np.arange(side) * stride, most - 1) for side, most in zip(grid, ids.shape, strict=True)
        )
        return np.tile(true_boxes(ids[np.ix_(rows, cols)]), (len(THINGS), 1, 1))

    return boxes


def blocks(grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Boxes that cut a grid into blocks, of whatever class: what is found hangs on no rounding of logits."""
    rows, cols = np.mgrid[: grid[0], : grid[1]]
    y, x = ((BLOCK - 1) / 2 - line % BLOCK for line in (rows, cols))
    boxes = np.stack([y, x, np.full(grid, BLOCK), np.full(grid, BLOCK)]).astype(np.float32)
    return np.tile(boxes, (len(THINGS), 1, 1))
