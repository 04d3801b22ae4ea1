"""Labels that mean something else than they were taken for, told from what a network says of them."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID, IGNORE, ClassSet
from errseg_rt.datasets.doubts import doubts
from errseg_rt.datasets.scores import ConfusionMatrix

N = len(CAMVID)


def counts(change=lambda truth: truth, right: float = 0.8, classes: int = N, seed: int = 0) -> np.ndarray:
    """Of a network that labels a share of the pixels right, whatever the labels call them."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, (64, 64), p=rng.dirichlet(np.full(classes, 2.0))).astype(np.uint8)
    noise = rng.integers(0, classes, truth.shape)
    predicted = np.where(rng.random(truth.shape) < right, truth, noise).astype(np.uint8)
    matrix = ConfusionMatrix(classes)
    matrix.add(np.asarray(change(truth), np.uint8), predicted)
    return matrix.counts


def counted_from_1(truth: np.ndarray) -> np.ndarray:
    """As read with the usual void: the last class's id is the void one."""
    return np.where(truth == N - 1, IGNORE, truth + 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("right", [0.55, 0.8, 1.0])
def test_labels_that_fit_raise_no_doubt(right, seed) -> None:
    assert doubts(counts(right=right, seed=seed), CAMVID, "mine", 0) == []


def test_nothing_is_said_of_nothing() -> None:
    assert doubts(np.zeros((N, N), np.int64), CAMVID, "mine", 0) == []


@pytest.mark.parametrize("seed", range(5))
def test_ids_counted_from_1(seed) -> None:
    (line,) = doubts(counts(counted_from_1, seed=seed), CAMVID, "mine", 0)
    assert line.endswith("if ids are counted from 1: give --first-id 1")
    assert line.startswith("only ")


def test_ids_counted_from_0_that_were_said_to_be_from_1() -> None:
    (line,) = doubts(counts(lambda truth: np.where(truth == 0, IGNORE, truth - 1)), CAMVID, "mine", 1)
    assert line.endswith("if ids are counted from 0: give --first-id 0")


def test_ids_are_never_counted_from_below_0() -> None:
    (line,) = doubts(counts(lambda truth: np.where(truth == 0, IGNORE, truth - 1)), CAMVID, "mine", 0)
    assert "--first-id" not in line


def test_a_map_has_no_first_id() -> None:
    (line,) = doubts(counts(counted_from_1), CAMVID, "mine")
    assert "--first-id" not in line
    assert line.endswith("are these ids those of `errseg-rt inspect mine`?")


def test_exchanged_ids_are_named() -> None:
    order = np.roll(np.arange(N), 4)
    (line,) = doubts(counts(lambda truth: order[truth]), CAMVID, "mine", 0)
    assert "ids seem exchanged (" in line
    assert any(f"{CAMVID.names[order[index]]} to be {CAMVID.names[index]}" in line for index in range(N))


def test_a_mask() -> None:
    found = counts(lambda truth: np.where(truth == 3, IGNORE, 0))
    found[0] = [10, 500, *[20] * (N - 2)]  # most of it looks like one class
    (line,) = doubts(found, CAMVID, "mine", 0)
    assert "no label is another than sky or void: is it a mask of 0 and 255?" in line


def test_noise() -> None:
    (line,) = doubts(counts(right=0.1), CAMVID, "mine", 0)
    assert "exchanged" not in line
    assert "are these ids those of" in line


def test_two_classes_the_wrong_way_round() -> None:
    two = ClassSet(("background", "vessel"), ((0, 0, 0), (255, 0, 0)))
    (line,) = doubts(counts(lambda truth: 1 - truth, classes=2), two, "mine", 0)
    assert "ids seem exchanged (background to be vessel" in line or "(vessel to be background" in line
