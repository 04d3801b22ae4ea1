"""Nothing is lost on the way from true labels and boxes to instances, but what a grid cannot hold."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID
from errseg_rt.kernels import Geometry, fuse_labels
from errseg_rt.kernels.instances import InstanceSpec, instances
from errseg_rt.scenes import StreetScene

CARS_AND_PEOPLE = tuple(sorted(CAMVID.names.index(name) for name in ("car", "pedestrian", "bicyclist")))


def recovered(ids, label_of, spec, stride):
    """IoU of each instance, `[n]`, with the best of those that come of its true labels and boxes on a grid.

    Args:
        ids: Instances by pixel of the frame, 0 for none, `[H, W]`.
        label_of: Class ids, `[H, W]`.
        spec: How they are found.
        stride: Of the grid on the frame.
    """
    classes, things = max(int(label_of.max()), spec.classes[-1]) + 1, len(spec.classes)
    grid = tuple(-(-side // stride) for side in ids.shape)
    padded = grid[0] * stride, grid[1] * stride
    geometry = Geometry(grid, padded, ids.shape, ids.shape, False)
    at = np.ix_(*(np.minimum(np.arange(n) * stride + stride // 2, m - 1) for n, m in zip(grid, ids.shape, strict=True)))
    logits = 8 * (np.arange(classes)[:, None, None] == label_of[at]).astype(np.float32)
    boxes, (rows, cols) = np.zeros((4, *grid), np.float32), np.mgrid[: grid[0], : grid[1]]
    numbers = np.unique(ids[ids > 0])
    for number in numbers:
        i, j = np.nonzero(ids == number)
        (top, left), (tall, broad) = (i.min(), j.min()), (np.ptp(i) + 1, np.ptp(j) + 1)
        y, x = ((least + size / 2) / stride - 0.5 for least, size in ((top, tall), (left, broad)))
        true = y - rows, x - cols, np.full(grid, tall / stride), np.full(grid, broad / stride)
        mask = ids[at] == number
        boxes[:, mask] = np.stack(true)[:, mask]
    labels = fuse_labels(logits, None, None, geometry).labels
    found = instances(logits, None, None, np.tile(boxes, (things, 1, 1)), labels, geometry, spec).map
    best = []
    for number in numbers:
        mask = ids == number
        others, shared = np.unique(found[mask], return_counts=True)
        ious = [n / ((found == k).sum() + mask.sum() - n) for k, n in zip(others, shared, strict=True) if k]
        best.append(max(ious, default=0.0))
    return np.array(best)


BEYOND_THE_PAPER = pytest.mark.parametrize("changes", [{}, {"hops": 2, "agreement": True}], ids=["paper", "hops"])


@BEYOND_THE_PAPER
def test_all_cars_and_people_of_rendered_streets(changes):
    """On a grid of all pixels; boxes that overlap by more than a half are of different instances here."""
    found = []
    for seed in range(6):
        frame = StreetScene(seed, 270, 360).frame(0)
        ids = frame.instances.astype(int)
        found.append(recovered(ids, frame.labels, InstanceSpec(CARS_AND_PEOPLE, overlap=0.85, **changes), 1))
    best = np.concatenate(found)
    assert len(best) > 60
    assert (best >= 0.5).mean() >= 0.98
    assert best.mean() > 0.97


@BEYOND_THE_PAPER
@pytest.mark.parametrize(("stride", "radius"), [(1, 2), (2, 4), (4, 8)])
def test_nuclei_that_touch(stride, radius, changes):
    """Discs of a few grid cells in a dense crowd, as nuclei are."""
    rng = np.random.default_rng(stride)
    ids = np.zeros((240, 320), int)
    rows, cols = np.mgrid[:240, :320]
    number = 0
    for _ in range(4000):
        y, x = rng.uniform(0, ids.shape)
        tall, broad = radius * rng.uniform(1, 1.8, 2)
        mask = ((rows - y) / tall) ** 2 + ((cols - x) / broad) ** 2 < 1
        if mask.any() and (ids[mask] > 0).mean() < 0.1:
            number += 1
            ids[mask & (ids == 0)] = number
    best = recovered(ids, (ids > 0).astype(int), InstanceSpec((1,), most=4000, **changes), stride)
    assert len(best) > 100
    assert (best >= 0.5).mean() >= 0.98
