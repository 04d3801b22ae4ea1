"""Which grid pixels are flagged, against eq. 4 as it is written."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.kernels.fuse_labels import Geometry
from errseg_rt.selection import select

WHOLE = Geometry((9, 13), (36, 52), (36, 52), (36, 52), False)


def error_logits(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(scale=3, size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("threshold", [1e-6, 0.3, 0.5, 0.7, 0.999])
def test_flags_what_exceeds_the_threshold(threshold, dtype) -> None:
    logits = error_logits(WHOLE.grid_size, dtype=dtype)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    flagged = select(logits, threshold, WHOLE)
    assert flagged.dtype == np.bool_
    np.testing.assert_array_equal(flagged, probability > threshold)


def test_the_threshold_itself_is_not_flagged() -> None:
    logits = np.zeros(WHOLE.grid_size, np.float32)
    assert not select(logits, 0.5, WHOLE).any()
    assert select(np.nextafter(logits, np.float32(1)), 0.5, WHOLE).all()


def test_logits_beyond_what_a_sigmoid_tells_apart_keep_their_order() -> None:
    logits = np.full(WHOLE.grid_size, 36.0, np.float64)
    logits[2, 3] = 37.0
    assert select(logits, 1 - 2**-53, WHOLE).nonzero() == (2, 3)


@pytest.mark.parametrize("align_corners", [False, True], ids=["half_pixel", "aligned"])
@pytest.mark.parametrize("content", [(36, 52), (21, 52), (20, 29), (1, 1)], ids=str)
@pytest.mark.parametrize("output", [None, (7, 90)], ids=["frame_size", "resized"])
def test_nothing_is_flagged_that_no_pixel_is_made_from(content, output, align_corners) -> None:
    geometry = Geometry((9, 13), (36, 52), content, output or content, align_corners)
    rows, cols = geometry.rows(), geometry.cols()

    def used(axis, count):
        """A grid line counts where some pixel gives it a weight above zero."""
        weight = np.zeros(count)
        np.maximum.at(weight, axis.lower, 1 - axis.weight)
        np.maximum.at(weight, np.minimum(axis.lower + 1, count - 1), axis.weight)
        return weight > 0

    last_row, last_col = (np.flatnonzero(used(*pair)).max() for pair in ((rows, 9), (cols, 13)))
    expected = np.zeros((9, 13), bool)
    expected[: last_row + 1, : last_col + 1] = True
    assert geometry.seen() == (last_row + 1, last_col + 1)
    np.testing.assert_array_equal(select(np.full((9, 13), 50.0, np.float32), 0.5, geometry), expected)


def test_the_error_map_is_left_as_it_is() -> None:
    logits = error_logits(WHOLE.grid_size)
    before = logits.copy()
    select(logits, 0.5, WHOLE)
    np.testing.assert_array_equal(logits, before)
