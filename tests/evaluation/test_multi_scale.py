"""Multi-scale inference, against the mean of probabilities at full size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from errseg_rt.evaluation.multi_scale import View, multi_scale_labels
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.fuse_labels import fuse_labels, upsample_reference
from errseg_rt.kernels.geometry import Geometry

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
