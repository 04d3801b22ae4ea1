"""With true class maps and true boxes in, true instances come out of real nuclei: telling them apart loses nothing."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.datasets import TrueInstances, open_dataset
from errseg_rt.evaluation import InstanceScores
from errseg_rt.frames.instances import Instances
from errseg_rt.kernels import Geometry
from errseg_rt.kernels.instances import InstanceSpec, instances
from tests.boxed import true_boxes
from tests.conftest import data_folder

NUCLEI = ClassSet(("background", "nucleus"), ((0, 0, 0), (255, 0, 0)))


def told_apart(labels: np.ndarray, true: TrueInstances, stride: int, **changes: object) -> Instances:
    """What the operation makes of the truth under the centre of each grid cell."""
    height, width = labels.shape
    grid = -(-height // stride), -(-width // stride)
    rows, cols = (
        np.minimum(np.arange(side) * stride + stride // 2, most - 1)
        for side, most in zip(grid, labels.shape, strict=True)
    )
    at = np.ix_(rows, cols)
    logits = np.where(np.arange(2)[:, None, None] == labels[at], 4, -4).astype(np.float32)
    padded = Geometry(grid, (grid[0] * stride, grid[1] * stride), (height, width), (height, width), False)
    boxes = true_boxes(true.map[at])
    found = instances(logits, None, None, boxes, labels, padded, InstanceSpec(**{"classes": (1,), **changes}))
    count = int(np.asarray(found.count).reshape(-1)[0])
    return Instances.of(found.map, found.classes[:count], found.scores[:count], NUCLEI)


@pytest.mark.parametrize("changes", [{}, {"hops": 4, "agreement": True}], ids=["paper", "hops"])
@pytest.mark.parametrize(("stride", "least"), [(1, 0.995), (2, 0.99), (4, 0.98)])
def test_nuclei(stride: int, least: float, changes: dict[str, object]) -> None:
    data = open_dataset(data_folder("dsb2018_nuclei", "instances"), NUCLEI)
    scores = InstanceScores(2, (1,))
    for index in range(0, len(data), 80):
        _, labels = data[index]
        true = data.instances(index, labels)
        scores.add(true, labels, told_apart(labels, true, stride, **changes), labels)
    assert scores.truths.sum() > 300
    assert scores.map_r([0.5]) >= least
