"""Scores of label maps, whole, frame by frame, and along outlines."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.ndimage import distance_transform_cdt
from sklearn.metrics import accuracy_score, jaccard_score

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.evaluation.label_scores import BoundaryIoU, LabelScores


def pair(seed, void=0.1, size=(20, 30)):
    rng = np.random.default_rng(seed)
    truth, labels = (rng.integers(0, 4, size, np.uint8) for _ in range(2))
    labels = np.where(rng.random(size) < 0.7, truth, labels)
    truth[rng.random(size) < void] = IGNORE
    return truth, labels


def test_equals_the_library(classes: ClassSet) -> None:
    scores = LabelScores(4)
    pairs = [pair(seed) for seed in range(3)]
    for truth, labels in pairs:
        scores.add(truth, labels)
    truth, labels = (np.concatenate([part[valid] for part, valid in both]) for both in zip(*(
        [(truth, truth != IGNORE), (labels, truth != IGNORE)] for truth, labels in pairs
    ), strict=True))  # fmt: skip
    found = scores.to_dict(classes)
    np.testing.assert_allclose(list(found["iou"].values()), jaccard_score(truth, labels, average=None))
    assert tuple(found["iou"]) == classes.names
    assert found["miou"] == pytest.approx(jaccard_score(truth, labels, average="macro"))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, labels))
    assert "boundary_iou" not in found


def test_frames_hold_what_the_sum_holds() -> None:
    scores = LabelScores(4)
    for seed in range(3):
        scores.add(*pair(seed))
    counts = scores.confusion.counts
    assert scores.frames.shape == (3, 3, 4)
    np.testing.assert_array_equal(scores.frames.sum(axis=0), [np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)])


def test_accuracy_by_frame() -> None:
    scores = LabelScores(4)
    truth, labels = pair(0)
    scores.add(truth, labels)
    scores.add(np.full_like(truth, IGNORE), labels)
    wanted = accuracy_score(truth[truth != IGNORE], labels[truth != IGNORE])
    assert scores.frame_accuracy() == [pytest.approx(wanted), None]


def test_outlines_are_those_of_boundary_iou(classes: ClassSet) -> None:
    scores, outlines = LabelScores(4, boundary=True), BoundaryIoU(4)
    for seed in range(2):
        truth, labels = pair(seed, void=0)
        labels[labels == 3] = 0
        truth[truth == 3] = 0
        scores.add(truth, labels)
        outlines.add(truth, labels)
    found = scores.to_dict(classes)
    assert list(found["boundary_iou"].values()) == [*outlines.iou()[:3].tolist(), None]
    assert found["boundary_miou"] == pytest.approx(np.nanmean(outlines.iou()))


@pytest.mark.parametrize("frames", [0, 2], ids=["no_frame", "void_everywhere"])
def test_nothing_to_score(classes: ClassSet, frames) -> None:
    scores = LabelScores(4, boundary=True)
    for _ in range(frames):
        scores.add(np.full((9, 9), IGNORE, np.uint8), np.zeros((9, 9), np.uint8))
    found = json.loads(json.dumps(scores.to_dict(classes), allow_nan=False))
    nothing = dict.fromkeys(classes.names)
    assert found == {"miou": None, "accuracy": None, "iou": nothing, "boundary_miou": None, "boundary_iou": nothing}
    assert scores.frames.shape == (frames, 3, 4)
    assert scores.frame_accuracy() == [None] * frames


def band(ids: np.ndarray, index: int, void: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a class that another class, or the frame's edge, lies near to."""
    alike = np.pad((ids == index) | void, 1)
    away = distance_transform_cdt(alike, metric="chessboard")[1:-1, 1:-1]
    return (ids == index) & ~void & (away <= distance)


def maps(seed, size, classes=4, void=0.05):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (-(-size[0] // 6), -(-size[1] // 6)), np.uint8)
    truth = np.kron(coarse, np.ones((6, 6), np.uint8))[: size[0], : size[1]].copy()
    labels = np.roll(truth, (1, 2), (0, 1))
    labels[rng.random(size) < 0.02] = 0
    truth[rng.random(size) < void] = IGNORE
    return truth, labels


@pytest.mark.parametrize("size", [(31, 47), (80, 61), (5, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("void", [0, 0.05, 0.5])
def test_equals_the_definition(size, void) -> None:
    truth, labels = maps(0, size, void=void)
    score = BoundaryIoU(5)
    score.add(truth, labels)
    distance = max(1, round(0.02 * math.hypot(*size)))
    hidden = truth == IGNORE
    for index in range(5):
        true_band, other = (band(ids, index, hidden, distance) for ids in (truth, labels))
        both, either = (true_band & other).sum(), (true_band | other).sum()
        assert score.counts[index].tolist() == [both, either]
        assert score.iou()[index] == pytest.approx(both / either) if either else math.isnan(score.iou()[index])


def test_frames_add_up() -> None:
    one, other, both = BoundaryIoU(4), BoundaryIoU(4), BoundaryIoU(4)
    for seed, score in ((0, one), (1, other)):
        score.add(*maps(seed, (30, 40)))
        both.add(*maps(seed, (30, 40)))
    np.testing.assert_array_equal(both.counts, one.counts + other.counts)


def test_equal_maps_score_one_and_the_inside_does_not_count() -> None:
    truth = np.zeros((200, 200), np.uint8)
    truth[:, 100:] = 1
    labels = truth.copy()
    labels[90:110, 40:60] = 2  # far from every outline of the truth
    perfect, spotted = BoundaryIoU(3), BoundaryIoU(3)
    perfect.add(truth, truth)
    spotted.add(truth, labels)
    np.testing.assert_array_equal(perfect.iou(), [1, 1, np.nan])
    assert spotted.counts[1].tolist() == perfect.counts[1].tolist()
    assert perfect.counts[0][1] < 0.2 * truth.size


def test_void_makes_no_outline() -> None:
    truth = np.zeros((100, 100), np.uint8)
    truth[40:60, 40:60] = IGNORE
    plain, holed = BoundaryIoU(2), BoundaryIoU(2)
    plain.add(np.zeros_like(truth), np.zeros_like(truth))
    holed.add(truth, np.zeros_like(truth))
    np.testing.assert_array_equal(plain.counts, holed.counts)


def test_void_everywhere() -> None:
    score = BoundaryIoU(2)
    score.add(np.full((9, 9), IGNORE, np.uint8), np.zeros((9, 9), np.uint8))
    assert np.isnan(score.iou()).all()
