"""The network's own way to full size and multi-scale inference, against their definitions at full size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from errseg_rt.evaluation.labels import View, argmax_of, multi_scale_labels, native_labels
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.fuse_labels import fuse_labels, upsample_reference
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


SIZE = (30, 37)
GRIDS = [
    Geometry((9, 11), (33, 41), (30, 37), SIZE, align_corners=True),
    Geometry((7, 9), (25, 33), (22, 28), SIZE, align_corners=True),
    Geometry((11, 14), (41, 53), (38, 46), SIZE, align_corners=True),
]


@pytest.fixture
def views() -> list[View]:
    rng = np.random.default_rng(0)
    made = []
    for geometry in GRIDS:
        for mirrored in (False, True):
            logits, detail = (rng.standard_normal((4, *geometry.grid_size)).astype(np.float32) for _ in range(2))
            error = rng.standard_normal(geometry.grid_size).astype(np.float32)
            made.append(View(Branches(logits, error, detail, geometry), mirrored))
    return made


def full_size(view: View, threshold: float | None) -> np.ndarray:
    """Fused probabilities at every pixel of the frame, as the frame has left and right."""
    branches = view.branches
    p = softmax(branches.logits, axis=0)
    if threshold is not None:
        p = np.where(1 / (1 + np.exp(-branches.error_logit)) > threshold, softmax(branches.detail_logits, axis=0), p)
    full = np.stack([upsample_reference(plane, branches.geometry) for plane in p])
    return full[..., ::-1] if view.mirrored else full


@pytest.mark.parametrize("threshold", [None, 0.4, 0.9])
def test_is_the_argmax_of_the_mean(views: list[View], threshold) -> None:
    mean = np.mean([full_size(view, threshold) for view in views], axis=0)
    found = multi_scale_labels(views, threshold)
    assert (found.shape, found.dtype) == (SIZE, np.uint8)
    assert (found == mean.argmax(axis=0)).mean() > 0.999


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_one_view_is_fusion(views: list[View], threshold) -> None:
    branches = views[0].branches
    given = (None, None) if threshold is None else (branches.detail_logits, branches.flagged(threshold))
    wanted = fuse_labels(branches.logits, *given, branches.geometry).labels
    assert (multi_scale_labels(views[:1], threshold) == wanted).mean() > 0.999


def test_a_mirrored_view_is_turned_back(views: list[View]) -> None:
    plain = views[0]
    turned = View(plain.branches, mirrored=True)
    np.testing.assert_array_equal(multi_scale_labels([turned])[:, ::-1], multi_scale_labels([plain]))
