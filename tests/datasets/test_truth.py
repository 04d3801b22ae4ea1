"""The truth on the grid, against its words taken literally."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets.truth import truth_on_grid
from errseg_rt.kernels.geometry import Geometry


def under_center(geometry: Geometry, axis: int, line: int) -> int | None:
    """The frame's row or column that shows the input pixel nearest to the centre of a grid line; None: padding."""
    grid, padded = geometry.grid_size[axis], geometry.input_size[axis]
    content, frame = geometry.content_size[axis], geometry.output_size[axis]
    center = line * (padded - 1) / max(grid - 1, 1) if geometry.align_corners else (line + 0.5) * padded / grid - 0.5
    nearest = min(range(padded), key=lambda pixel: (abs(pixel - center), pixel % 2))
    # The frame's pixel whose area holds the centre of the content's pixel.
    return int((nearest + 0.5) * frame / content) if nearest < content else None


def test_is_the_label_under_each_center(geometry: Geometry) -> None:
    truth = np.random.default_rng(0).integers(0, 20, geometry.output_size, np.uint8)
    found = truth_on_grid(truth, geometry)
    assert (found.shape, found.dtype) == (geometry.grid_size, np.uint8)
    for row in range(geometry.grid_size[0]):
        for col in range(geometry.grid_size[1]):
            y, x = under_center(geometry, 0, row), under_center(geometry, 1, col)
            assert found[row, col] == (IGNORE if y is None or x is None else truth[y, x])


def test_the_padding_is_void() -> None:
    geometry = Geometry((4, 5), (16, 20), (9, 9), (9, 9), align_corners=False)
    found = truth_on_grid(np.zeros((9, 9), np.uint8), geometry)
    # Centres of the grid lie at input pixels 1.5, 5.5, 9.5, ...
    np.testing.assert_array_equal(found == 0, np.outer([1, 1, 0, 0], [1, 1, 0, 0, 0]))


def test_one_pixel() -> None:
    geometry = Geometry((1, 1), (1, 1), (1, 1), (1, 1), align_corners=True)
    assert truth_on_grid(np.full((1, 1), 3, np.uint8), geometry) == 3


def test_the_truth_is_left_as_it_is(geometry: Geometry) -> None:
    truth = np.zeros(geometry.output_size, np.uint8)
    truth_on_grid(truth, geometry)[:] = 7
    assert not truth.any()


def test_a_truth_of_another_size(geometry: Geometry) -> None:
    with pytest.raises(ValueError, match=r"must be of the frame's size .* got truth.shape = \(2, 3\)"):
        truth_on_grid(np.zeros((2, 3), np.uint8), geometry)
