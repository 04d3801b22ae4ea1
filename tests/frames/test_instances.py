"""Instances against their definition, mask by mask."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID, ClassSet
from errseg_rt.frames.instances import Instances

NUCLEI = ClassSet(("background", "nucleus"), ((0, 0, 0), (255, 0, 0)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 13), (32, 33)], ids=str)
def test_measures_are_those_of_each_mask(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 12, shape)
    index[index == 5] = 0  # vanished
    classes, scores = rng.integers(0, len(CAMVID), 11), rng.integers(0, 4, 11) / 4  # with ties
    error_map = rng.random(shape).astype(np.float32)
    found = Instances.of(index, classes, scores, CAMVID, error_map)
    order = sorted((-scores[k - 1], k) for k in range(1, 12) if (index == k).any())
    assert len(found) == len(order) == found.map.max()
    assert (found.map.dtype, found.classes.dtype, found.scores.dtype) == (np.int32, np.int32, np.float32)
    assert (found.boxes.dtype, found.areas.dtype) == (np.int32, np.int64)
    assert found.error_probability is not None
    assert found.error_probability.dtype == np.float32
    for number, (score, k) in enumerate(order):
        mask = index == k
        rows, cols = np.nonzero(mask)
        np.testing.assert_array_equal(found.mask(number), mask)
        assert (found.classes[number], found.scores[number]) == (classes[k - 1], -score)
        low, high = (cols.min(), rows.min()), (cols.max(), rows.max())
        assert found.boxes[number].tolist() == [*low, *(high[i] - low[i] + 1 for i in (0, 1))]
        assert found.areas[number] == mask.sum()
        assert found.error_probability[number] == pytest.approx(error_map[mask].mean(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (5, 5)], ids=str)
def test_no_instance(shape: tuple[int, int]) -> None:
    none = Instances.none(shape, NUCLEI)
    assert (len(none), none.boxes.shape, none.map.shape, none.rows()) == (0, (0, 4), shape, [])
    assert none.error_probability is not None
    assert Instances.none(shape, NUCLEI, has_errors=False).error_probability is None
    with pytest.raises(IndexError, match="no instance 0 among 0"):
        none.mask(0)


def test_all_that_were_given_may_have_vanished() -> None:
    assert len(Instances.of(np.zeros((3, 4), np.uint16), [1, 1], [0.5, 0.9], NUCLEI)) == 0


def test_rows_for_a_report_and_repr() -> None:
    index = np.array([[0, 2, 2], [1, 0, 2]], np.uint8)
    found = Instances.of(index, [1, 1], [0.25, 0.5], NUCLEI)
    assert found.rows() == [
        {"class": "nucleus", "score": 0.5, "box": [1, 0, 2, 2], "area": 3, "error_probability": None},
        {"class": "nucleus", "score": 0.25, "box": [0, 1, 1, 1], "area": 1, "error_probability": None},
    ]
    assert repr(found) == "Instances(2x3, 2 nucleus)"
    assert repr(Instances.none((2, 3), NUCLEI)) == "Instances(2x3, none)"


@pytest.mark.parametrize(
    ("index", "classes", "scores", "message"),
    [
        (np.zeros((2, 3, 3), np.uint8), [], [], "integers .H, W., got uint8"),
        (np.zeros((2, 3), np.float32), [], [], "integers .H, W., got float32"),
        (np.full((2, 3), 2), [1], [0.5], "id 2 of the index map has no class: there are 1"),
        (np.full((2, 3), -1), [1], [0.5], "id -1 of the index map has no class"),
        (np.ones((2, 3), int), [1], [], "1 classes but 0 scores"),
        (np.ones((2, 3), int), [2], [0.5], "class 2 is none of the 2"),
        (np.ones((2, 3), int), [1], [np.nan], "not finite"),
    ],
    ids=["channels", "floats", "no-class", "negative", "no-score", "unknown-class", "nan"],
)
def test_what_is_no_instance_map_is_refused(index: np.ndarray, classes: list, scores: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Instances.of(index, classes, scores, NUCLEI)


def test_an_error_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        Instances.of(np.zeros((2, 3), int), [], [], NUCLEI, np.zeros((3, 2), np.float32))
