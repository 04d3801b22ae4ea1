"""Scores against a count by hand, and against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets.scores import ConfusionMatrix


def random_pairs(classes: int, void: float, seed: int, sizes=((13, 7), (1, 1), (32, 45))):
    """Pairs of truth and labels that agree about half of the time."""
    rng = np.random.default_rng([seed, classes])
    for size in sizes:
        truth = rng.integers(0, classes, size).astype(np.uint8)
        labels = np.where(rng.random(size) < 0.5, truth, rng.integers(0, classes, size)).astype(np.uint8)
        yield np.where(rng.random(size) < void, IGNORE, truth).astype(np.uint8), labels


def by_hand(pairs, classes: int):
    """IoU per class and accuracy, from sets of pixels."""
    pixels = [
        (t, p) for truth, labels in pairs for t, p in zip(truth.ravel(), labels.ravel(), strict=True) if t != IGNORE
    ]
    iou = []
    for c in range(classes):
        true = {i for i, (t, _) in enumerate(pixels) if t == c}
        given = {i for i, (_, p) in enumerate(pixels) if p == c}
        iou.append(len(true & given) / len(true | given) if true | given else float("nan"))
    return iou, sum(t == p for t, p in pixels) / len(pixels)


def scored(pairs, classes: int) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    for truth, labels in pairs:
        matrix.add(truth, labels)
    return matrix


@pytest.mark.parametrize("void", [0.0, 0.3], ids=["no_void", "void"])
@pytest.mark.parametrize("classes", [2, 11, 255])
def test_scores_equal_a_count_by_hand(classes, void) -> None:
    pairs = list(random_pairs(classes, void, seed=0))
    iou, accuracy = by_hand(pairs, classes)
    matrix = scored(pairs, classes)
    # Both are one division of the same two integers.
    np.testing.assert_array_equal(matrix.iou(), iou)
    assert matrix.accuracy() == accuracy
    assert matrix.miou() == pytest.approx(np.nanmean(iou), rel=1e-12)


@pytest.mark.parametrize("classes", [3, 19])
def test_scores_equal_those_of_torchmetrics(classes) -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.classification")
    # A void share and frames of a fair size, so that every class occurs: torchmetrics calls an absent class 0.
    pairs = list(random_pairs(classes, 0.2, seed=1, sizes=((64, 65), (33, 97))))
    jaccard = metrics.MulticlassJaccardIndex(classes, average=None, ignore_index=IGNORE)
    accuracy = metrics.MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE)
    for truth, labels in pairs:
        for metric in (jaccard, accuracy):
            metric.update(torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(truth.astype(np.int64)))
    matrix = scored(pairs, classes)
    # torchmetrics divides in float32.
    np.testing.assert_allclose(matrix.iou(), jaccard.compute().numpy(), rtol=1e-6)
    assert matrix.accuracy() == pytest.approx(float(accuracy.compute()), rel=1e-6)


def test_a_class_that_nothing_holds_does_not_count() -> None:
    truth = np.array([[0, 0, 2, IGNORE]], np.uint8)
    labels = np.array([[0, 2, 2, 1]], np.uint8)
    matrix = scored([(truth, labels)], 4)
    np.testing.assert_array_equal(matrix.iou(), [1 / 2, np.nan, 1 / 2, np.nan])
    assert matrix.miou() == 1 / 2
    assert matrix.accuracy() == 2 / 3


@pytest.mark.parametrize("truth", [None, np.full((3, 5), IGNORE, np.uint8)], ids=["no_frame", "void_frame"])
def test_without_a_valid_pixel_scores_are_nan(truth) -> None:
    matrix = scored([] if truth is None else [(truth, np.zeros_like(truth))], 3)
    assert not matrix.counts.any()
    assert np.isnan(matrix.iou()).all()
    assert np.isnan(matrix.miou())
    assert np.isnan(matrix.accuracy())


def test_rows_are_the_truth() -> None:
    matrix = scored([(np.array([[0, 0, 1]], np.uint8), np.array([[1, 1, 1]], np.uint8))], 2)
    np.testing.assert_array_equal(matrix.counts, [[0, 2], [0, 1]])


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"differ in shape: \(2, 3\) and \(3, 2\)"):
        ConfusionMatrix(2).add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


@pytest.mark.parametrize(
    ("truth", "label"), [(5, 0), (0, 5), (254, 0), (0, IGNORE)], ids=["truth", "label", "high_truth", "void_label"]
)
def test_an_id_that_is_no_class(truth, label) -> None:
    matrix = ConfusionMatrix(5)
    with pytest.raises(ValueError, match=f"id {max(truth, label)} is not one of 5 classes"):
        matrix.add(np.array([[0, truth]], np.uint8), np.array([[0, label]], np.uint8))
    assert not matrix.counts.any()


@pytest.mark.parametrize("classes", [2, 5])
def test_void_labels_are_missed_pixels_of_no_class(classes) -> None:
    pairs = []
    for index, (truth, labels) in enumerate(random_pairs(classes, 0.2, seed=2)):
        labels[np.random.default_rng(index).random(labels.shape) < 0.3] = IGNORE
        pairs.append((truth, labels))
    iou, accuracy = by_hand(pairs, classes)
    matrix = ConfusionMatrix(classes, void_labels=True)
    for truth, labels in pairs:
        matrix.add(truth, labels)
    np.testing.assert_array_equal(matrix.iou(), iou)
    assert matrix.accuracy() == accuracy
    assert matrix.missed.sum() == sum(((t != IGNORE) & (p == IGNORE)).sum() for t, p in pairs) > 0


def test_a_truth_that_is_no_class_is_told_also_where_the_label_is_void() -> None:
    matrix = ConfusionMatrix(5, void_labels=True)
    with pytest.raises(ValueError, match="id 7 is not one of 5 classes"):
        matrix.add(np.array([[0, 7]], np.uint8), np.array([[0, IGNORE]], np.uint8))
    assert not matrix.counts.any()
    assert not matrix.missed.any()


@pytest.mark.parametrize("seed", range(3))
def test_gain_is_over_the_classes_of_the_truth(seed) -> None:
    """Against scikit-learn: labels of a class that the truth lacks make no class of their own."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (9, 11)).astype(np.uint8)
    truth[0] = IGNORE
    pair = [np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 3, truth.shape)) for _ in range(2)]
    pair = [np.where(labels == IGNORE, 0, labels).astype(np.uint8) for labels in pair]
    pair[0][4, 4] = 4  # of six classes, one that is nowhere else
    matrices = [ConfusionMatrix(6), ConfusionMatrix(6)]
    valid, ious = truth != IGNORE, []
    for matrix, labels in zip(matrices, pair, strict=True):
        matrix.add(truth, labels)
        ious.append(jaccard_score(truth[valid], labels[valid], average="macro", labels=[0, 1, 2]))
        assert matrix.miou_of_truth() == pytest.approx(ious[-1])
    assert matrices[0].gain_over(matrices[1]) == pytest.approx(ious[0] - ious[1])
    assert matrices[1].gain_over(matrices[0]) == pytest.approx(ious[1] - ious[0])
    assert matrices[0].miou() == pytest.approx(ious[0] * 3 / 4)


def test_void_labels_are_missed_on_the_truths_side_of_a_gain() -> None:
    open_, full = ConfusionMatrix(3, void_labels=True), ConfusionMatrix(3)
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    open_.add(truth, np.array([[0, 0, IGNORE, IGNORE]], np.uint8))  # class 1 is missed, and still counts
    full.add(truth, truth)
    assert open_.gain_over(full) == 1 / 2 - 1


def test_without_a_pixel_there_is_no_gain() -> None:
    assert np.isnan(ConfusionMatrix(3).gain_over(ConfusionMatrix(3)))


def test_gains_are_on_the_same_frames() -> None:
    one, other = ConfusionMatrix(3), ConfusionMatrix(3)
    one.add(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    other.add(np.ones((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="wanted labels of the same frames"):
        one.gain_over(other)
