"""Arrays of a GPU without torch know how they lie, as NumPy's do."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.places.arrays import DeviceArray

SHAPES = [(2, 8, 5, 7), (1, 8, 5, 7), (1, 8, 1, 1), (1, 1, 5, 7), (3, 4), (0, 3)]
LAST = (0, 2, 3, 1)


def both(shape: tuple[int, ...]) -> tuple[DeviceArray, np.ndarray]:
    """An array, and NumPy's of the same elements, at the same address."""
    theirs = np.zeros(shape, np.float16)
    return DeviceArray(theirs.ctypes.data, shape, "float16", theirs), theirs


def assert_same(ours: DeviceArray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert ours.is_contiguous() == theirs.flags.c_contiguous
    assert ours.size == theirs.nbytes
    if theirs.size:
        assert ours.stride() == tuple(step // theirs.itemsize for step in theirs.strides)
        assert ours.address == theirs.ctypes.data


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_axes_change_places(shape: tuple[int, ...]) -> None:
    ours, theirs = both(shape)
    assert_same(ours, theirs)
    axes = LAST[: len(shape)] if len(shape) == 4 else (1, 0)
    ours, theirs = ours.permute(*axes), theirs.transpose(axes)
    assert_same(ours, theirs)
    if len(shape) == 4:
        back = np.argsort(axes).tolist()
        assert_same(ours.permute(*back), theirs.transpose(back))


@pytest.mark.parametrize("index", [0, 1])
def test_one_of_the_first_axis(index: int) -> None:
    ours, theirs = both((2, 5, 7, 8))
    assert_same(ours[index], theirs[index])
    assert_same(ours.permute(0, 3, 1, 2)[index], theirs.transpose(0, 3, 1, 2)[index])


def test_another_shape_is_of_what_lies_in_order() -> None:
    ours, theirs = both((2, 6))
    assert_same(ours.reshape(3, 4), theirs.reshape(3, 4))
    with pytest.raises(ValueError, match=r"\[2, 6\] of strides \[6, 1\] cannot have the shape \[5\]"):
        ours.reshape(5)
    with pytest.raises(ValueError, match=r"\[6, 2\] of strides \[1, 6\] cannot have the shape \[12\]"):
        ours.permute(1, 0).reshape(12)
