"""The network's own way to full size, against torch's."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.evaluation.class_maps import argmax_of
from errseg_rt.evaluation.native import native_labels
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.fuse_labels import upsample_reference
from errseg_rt.kernels.geometry import Geometry


def branches(logits: np.ndarray, geometry: Geometry) -> Branches:
    return Branches(logits, np.zeros(geometry.grid_size, np.float32), logits, geometry)


@pytest.mark.parametrize("align_corners", [True, False], ids=["corners", "edges"])
@pytest.mark.parametrize(("size", "grid"), [((33, 65), (9, 17)), ((32, 52), (8, 13))], ids=str)
def test_equals_torch(align_corners, size, grid) -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).standard_normal((5, *grid)).astype(np.float32)
    full = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=size, mode="bilinear", align_corners=align_corners
    )
    found = native_labels(branches(logits, Geometry(grid, size, size, size, align_corners)))
    assert (found.shape, found.dtype) == (size, np.uint8)
    # Two classes may tie within rounding.
    assert (found == full[0].argmax(dim=0).numpy()).mean() > 0.999


def test_undoes_padding_and_scale(geometry: Geometry) -> None:
    logits = np.random.default_rng(1).standard_normal((3, *geometry.grid_size)).astype(np.float32)
    full = np.stack([upsample_reference(plane, geometry) for plane in logits])
    assert (native_labels(branches(logits, geometry)) == full.argmax(axis=0)).mean() > 0.999


def test_is_not_the_interpolation_of_probabilities() -> None:
    # Half-way, the sure class of one side wins by its logit, though both sides are sure of theirs.
    logits = np.array([[[9, -9]], [[-30, 3]]], np.float32)
    found = native_labels(branches(logits, Geometry((1, 2), (1, 9), (1, 9), (1, 9), align_corners=True)))
    lines = np.linspace(0, 1, 9)
    np.testing.assert_array_equal(found[0], (-30 + 33 * lines > 9 - 18 * lines).astype(int))
    assert found[0, 5] == 0


def test_the_lowest_class_wins_ties_and_maps_are_left_alone() -> None:
    maps = [np.zeros((2, 2), np.float32), np.array([[0, 1], [0, 0]], np.float32), np.ones((2, 2), np.float32)]
    assert argmax_of(iter(maps[:2])).tolist() == [[0, 1], [0, 0]]
    assert argmax_of(maps).tolist() == [[2, 1], [2, 2]]
    assert not maps[0].any()
