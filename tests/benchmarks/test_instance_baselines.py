"""Baselines of instances, on discs whose number is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.instance_baselines import connected_components, watershed
from errseg_rt.bundle.classes import ClassSet

CLASSES = ClassSet(("background", "cell", "dot"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))


@pytest.fixture
def discs() -> np.ndarray:
    """Two cells that touch, one that lies alone, one cut by the edge, and a dot beside a cell."""
    labels = np.zeros((91, 121), np.uint8)
    for center in ((30, 30), (53, 30), (95, 60), (60, 88)):
        cv2.circle(labels, center, 12, 1, -1)
    cv2.circle(labels, (95, 44), 4, 2, -1)
    return labels


def test_pieces_of_the_class_map(discs: np.ndarray) -> None:
    found = connected_components(discs, (1, 2), CLASSES)
    assert np.bincount(found.classes).tolist() == [0, 3, 1]
    np.testing.assert_array_equal(found.map > 0, discs > 0)
    np.testing.assert_array_equal(np.array([0, *found.classes])[found.map], discs)


def test_watershed_cuts_what_touches(discs: np.ndarray) -> None:
    found = watershed(discs, (1, 2), CLASSES)
    assert np.bincount(found.classes).tolist() == [0, 4, 1]
    np.testing.assert_array_equal(found.map > 0, discs > 0)
    left, right = found.map[30, 30], found.map[30, 53]
    assert left != right
    rows, cols = np.nonzero(np.isin(found.map, (left, right)))
    share = np.mean((found.map[rows, cols] == left) == (cols < 41.5))
    assert share > 0.98


def test_scores_and_errors_are_means(discs: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    confidence, errors = rng.random(discs.shape).astype(np.float32), rng.random(discs.shape).astype(np.float32)
    for method in (connected_components, watershed):
        found = method(discs, (1, 2), CLASSES, confidence=confidence, error_map=errors)
        for number in range(len(found)):
            assert found.scores[number] == pytest.approx(confidence[found.mask(number)].mean(), rel=1e-4)
            assert found.error_probability[number] == pytest.approx(errors[found.mask(number)].mean(), rel=1e-4)
        assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("method", [connected_components, watershed])
def test_small_pieces_and_none(method, discs: np.ndarray) -> None:
    assert 2 not in method(discs, (1, 2), CLASSES, least_pixels=60).classes
    for shape in ((1, 1), (5, 1), (7, 9)):
        assert len(method(np.zeros(shape, np.uint8), (1, 2), CLASSES)) == 0
        assert len(method(np.ones(shape, np.uint8), (1, 2), CLASSES)) == 1
