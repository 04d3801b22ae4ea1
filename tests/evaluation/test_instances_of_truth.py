"""With true class maps and true boxes in, true instances come out: telling them apart loses nothing."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID, IGNORE, ClassSet
from errseg_rt.datasets import TrueInstances, open_dataset
from errseg_rt.evaluation import InstanceScores
from errseg_rt.frames.instances import Instances
from errseg_rt.kernels import Geometry
from errseg_rt.kernels.instances import InstanceSpec, instances
from errseg_rt.scenes import StreetScene
from tests.boxed import THINGS, true_boxes
from tests.conftest import data_folder

NUCLEI = ClassSet(("background", "nucleus"), ((0, 0, 0), (255, 0, 0)))


def told_apart(labels: np.ndarray, true: TrueInstances, things: tuple[int, ...], classes: ClassSet, stride: int):
    """What the operation makes of the truth under the centre of each grid cell; and the labels that it saw."""
    seen = np.where(labels == IGNORE, 0, labels).astype(np.uint8)
    height, width = labels.shape
    grid = -(-height // stride), -(-width // stride)
    rows, cols = (
        np.minimum(np.arange(side) * stride + stride // 2, most - 1)
        for side, most in zip(grid, labels.shape, strict=True)
    )
    ids, of_grid = true.map[np.ix_(rows, cols)], seen[np.ix_(rows, cols)]
    logits = np.where(np.arange(len(classes))[:, None, None] == of_grid, 4, -4).astype(np.float32)
    boxes = np.tile(true_boxes(ids), (len(things), 1, 1))
    padded = Geometry(grid, (grid[0] * stride, grid[1] * stride), (height, width), (height, width), False)
    found = instances(logits, None, None, boxes, seen, padded, InstanceSpec(classes=things))
    count = int(np.asarray(found.count).reshape(-1)[0])
    return Instances.of(found.map, found.classes[:count], found.scores[:count], classes), seen


def test_rendered_streets() -> None:
    """On a grid as fine as the frame: what is far away is smaller than a cell of a coarser one."""
    things = tuple(sorted(CAMVID.names.index(name) for name in THINGS))
    scores = InstanceScores(len(CAMVID), things)
    for seed in range(4):
        scene = StreetScene(seed, 480, 640).frame(0)
        true = TrueInstances.of_labels(scene.instances.astype(np.int32), scene.labels)
        found, seen = told_apart(scene.labels, true, things, CAMVID, stride=1)
        scores.add(true, scene.labels, found, seen)
    assert scores.truths.sum() > 100
    assert scores.map_r([0.5]) >= 0.98


@pytest.mark.parametrize(("stride", "least"), [(1, 0.995), (2, 0.99), (4, 0.98)])
def test_nuclei(stride: int, least: float) -> None:
    data = open_dataset(data_folder("dsb2018_nuclei", "instances"), NUCLEI)
    scores = InstanceScores(2, (1,))
    for index in range(0, len(data), 80):
        _, labels = data[index]
        true = data.instances(index, labels)
        found, seen = told_apart(labels, true, (1,), NUCLEI, stride)
        scores.add(true, labels, found, seen)
    assert scores.truths.sum() > 300
    assert scores.map_r([0.5]) >= least
