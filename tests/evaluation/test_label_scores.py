"""Scores of label maps, whole and frame by frame."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.evaluation.boundary import BoundaryIoU
from errseg_rt.evaluation.label_scores import LabelScores


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
