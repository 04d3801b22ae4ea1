"""All scores together: from branches, frame by frame."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.datasets.truth import truth_on_grid
from errseg_rt.evaluation.bootstrap import FEWEST_FRAMES
from errseg_rt.evaluation.error_maps import DETAIL, SCORES
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.evaluation.labels import View, multi_scale_labels, native_labels
from errseg_rt.kernels.fuse_labels import fuse_labels


def evaluated(samples, threshold=0.6, folds=1, **options) -> Evaluation:
    evaluation = Evaluation(4, threshold, folds=folds, **options)
    for index, (truth, branches) in enumerate(samples):
        evaluation.add(truth, branches, fold=index % folds)
    return evaluation


def test_labels_are_those_of_fusion(sample, geometry, classes: ClassSet) -> None:
    samples = [sample(seed, geometry) for seed in range(FEWEST_FRAMES)]
    ways = {
        "semantic": lambda b: fuse_labels(b.logits, None, None, b.geometry).labels,
        "native": native_labels,
        "fused": lambda b: fuse_labels(b.logits, b.detail_logits, b.flagged(0.6), b.geometry).labels,
    }
    scores = evaluated(samples).to_dict(classes)
    for name, label in ways.items():
        matrix = ConfusionMatrix(4)
        for truth, branches in samples:
            matrix.add(truth, label(branches))
        assert scores[name] == matrix.to_dict(classes)
    better = max(("semantic", "native"), key=lambda name: scores[name]["miou"])
    assert scores["gain"]["over"] == better
    assert scores["gain"]["miou"] == pytest.approx(scores["fused"]["miou"] - scores[better]["miou"])
    low, high = scores["gain"]["interval"]
    assert low <= high
    assert scores["gain"]["tie"] is (low <= 0 <= high)
    assert (scores["gain"]["classes"], scores["gain"]["block"]) == (4, 3)
    assert (scores["frames"], scores["threshold"], scores["thresholds"]) == (FEWEST_FRAMES, 0.6, [])


def test_few_frames_have_no_verdict(sample, classes: ClassSet) -> None:
    """Draws of one frame are all alike; frames of void are none."""
    samples = [sample(seed) for seed in range(FEWEST_FRAMES)]
    for few in (
        samples[:1],
        samples[:1] * 2,
        samples[1:],
        [*samples[1:], (np.full_like(samples[0][0], IGNORE), samples[0][1])],
    ):
        gain = evaluated(few).to_dict(classes)["gain"]
        assert (gain["interval"], gain["tie"]) == (None, None)
        assert np.isfinite(gain["miou"])


def test_a_class_that_is_nowhere_in_the_truth_is_in_no_gain(sample, classes: ClassSet) -> None:
    """The labels of one way hold it, those of the others do not: all are scored over the truth's three classes."""
    samples = []
    for seed in range(3):
        truth, branches = sample(seed)
        truth[truth == 3] = IGNORE
        branches.logits[3] = branches.detail_logits[3] = -50
        branches.error_logit[:] = -5
        branches.error_logit[4, 5], branches.detail_logits[3, 4, 5] = 5, 50
        samples.append((truth, branches))
    scores, ious = evaluated(samples).to_dict(classes), {}
    assert scores["fused"]["iou"]["d"] == 0
    assert scores["semantic"]["iou"]["d"] is scores["native"]["iou"]["d"] is None
    for way in ("semantic", "native", "fused"):
        ious[way] = np.mean([scores[way]["iou"][name] for name in "abc"])
    gain = scores["gain"]
    assert (gain["over"], gain["classes"]) == (max(("semantic", "native"), key=lambda way: ious[way]), 3)
    assert gain["miou"] == pytest.approx(ious["fused"] - ious[gain["over"]])
    assert scores["fused"]["miou"] - scores[gain["over"]]["miou"] < gain["miou"] - 0.04


def test_error_scores_are_those_of_the_grid(sample, geometry, classes: ClassSet) -> None:
    samples = [sample(seed, geometry) for seed in range(20)]
    wrong, logits = [], []
    for truth, branches in samples:
        on_grid = truth_on_grid(truth, branches.geometry)
        valid = on_grid != IGNORE
        wrong.append((branches.logits.argmax(axis=0) != on_grid)[valid])
        p = softmax(branches.logits.astype(np.float64), axis=0)[:, valid]
        second, top = np.sort(p, axis=0)[-2:]
        logits.append([branches.error_logit[valid], 1 - top, entropy(p, axis=0), 1 - (top - second)])
    wrong, logits = np.concatenate(wrong), np.concatenate(logits, axis=1)
    calibration = Calibration((-3.0, 3.0), (0.1, 0.9))
    found = evaluated(samples).to_dict(classes, {"p_ep": calibration})["errors"]
    assert (found["pixels"], found["rate"]) == (wrong.size, pytest.approx(wrong.mean()))
    for name, score in zip(SCORES, logits, strict=True):
        values = found if name == "p_ep" else found["baselines"][name]
        # Some two thousand pixels, of which a few share a bin.
        assert values["auroc"] == pytest.approx(roc_auc_score(wrong, score), abs=2e-3)
        assert values["aupr"] == pytest.approx(average_precision_score(wrong, score), abs=5e-3)
    assert found["brier"] == pytest.approx(brier_score_loss(wrong, calibration(logits[0])), abs=1e-3)
    assert found["baselines"]["margin"]["brier"] is None


def test_views_are_scored_beside_the_plain_frame(sample, classes: ClassSet) -> None:
    (truth, plain), (_, other) = sample(0), sample(1)
    views = [View(plain), View(other, mirrored=True)]
    evaluation = Evaluation(4, 0.6)
    evaluation.add(truth, plain, views=views)
    scores = evaluation.to_dict(classes)
    for name, threshold in (("semantic_ms", None), ("fused_ms", 0.6)):
        matrix = ConfusionMatrix(4)
        matrix.add(truth, multi_scale_labels(views, threshold))
        assert scores[name] == matrix.to_dict(classes)
    assert "fused_ms" not in evaluated([sample(0)]).to_dict(classes)


def test_folds_add_up_to_the_whole(sample, classes: ClassSet) -> None:
    samples = [sample(seed) for seed in range(5)]
    whole, parts = evaluated(samples), evaluated(samples, folds=3)
    assert parts.to_dict(classes) == whole.to_dict(classes)
    assert parts.calibrations() == whole.calibrations()
    assert [sum(fold.pixels) for fold in parts.folds] == [
        sum(sum(evaluated([samples[index]]).errors.pixels) for index in range(first, 5, 3)) for first in range(3)
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["no_frame", "void", "no_errors", "all_errors"])
def test_json_holds_numbers_or_null(sample, classes: ClassSet, case) -> None:
    samples = []
    if case != "no_frame":
        truth, branches = sample(0, void=0.0)
        branches.logits[:] = -5
        branches.logits[2] = 5
        branches.detail_logits[:] = branches.logits
        truth[:] = {"void": IGNORE, "no_errors": 2, "all_errors": 1}[case]
        samples = [(truth, branches)] * FEWEST_FRAMES
    evaluation = evaluated(samples, thresholds=(0.5,), boundary=True)
    calibration = Calibration((0.0,), (0.5,))
    scores = json.loads(json.dumps(evaluation.to_dict(classes, dict.fromkeys(SCORES, calibration)), allow_nan=False))
    rate = {"no_errors": 0.0, "all_errors": 1.0}.get(case)
    assert scores["errors"]["rate"] == rate
    assert scores["semantic"]["accuracy"] == (None if rate is None else 1 - rate)
    assert (scores["errors"]["auroc"], scores["errors"]["fpr95"]) == (None, None)
    assert scores["errors"]["aupr"] == (1.0 if case == "all_errors" else None)
    if rate is None:
        assert scores["gain"] is None
        with pytest.raises(ValueError, match="no pixel to fit a calibration on"):
            evaluation.calibrations()
    else:
        assert (scores["gain"]["miou"], scores["gain"]["tie"]) == (0, True)
        assert scores["errors"]["brier"] == 0.25
        assert {name: fitted(np.zeros(1)) for name, fitted in evaluation.calibrations().items()} == dict.fromkeys(
            (*SCORES, DETAIL), rate
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda truth, branches: (truth[:-1], branches), "must be of the frame's size"),
        (lambda truth, branches: (np.full_like(truth, 9), branches), "id 9 is not one of 4 classes"),
        (lambda truth, branches: (branches.error_logit.fill(np.nan), (truth, branches))[1], "hold NaN"),
        (lambda truth, branches: (branches.detail_logits.fill(np.nan), (truth, branches))[1], "detail logits hold NaN"),
    ],
    ids=["size", "class", "nan", "nan_of_detail"],
)
def test_a_bad_frame_counts_for_nothing(sample, classes: ClassSet, change, message) -> None:
    evaluation = evaluated([sample(0)], thresholds=(0.5,))
    before = evaluation.to_dict(classes)
    with pytest.raises(ValueError, match=message):
        evaluation.add(*change(*sample(1)))
    assert evaluation.to_dict(classes) == before


COARSE = np.array([0, 0, 1, IGNORE, *[IGNORE] * 252], np.uint8)
"""Of four classes, two are one for the truth, one is another, and one is wrong everywhere."""


def test_truth_of_coarser_classes(sample, geometry) -> None:
    """A label is wrong outside the true set: as scores and error maps count it, by loops over pixels."""
    samples = [sample(seed, geometry, 4) for seed in range(6)]
    samples = [(np.where(truth == 3, IGNORE, COARSE[truth]).astype(np.uint8), branches) for truth, branches in samples]
    two = ClassSet(("a or b", "c"), ((1, 0, 0), (0, 0, 1)))
    evaluation = Evaluation(2, 0.6, thresholds=(0.6,), coarse=COARSE)
    hits, of_truth, of_labels = np.zeros(2), np.zeros(2), np.zeros(2)
    wrong, logits = [], []
    for truth, branches in samples:
        evaluation.add(truth, branches, views=[View(branches)])
        labels = fuse_labels(branches.logits, branches.detail_logits, branches.flagged(0.6), branches.geometry).labels
        for true, label in zip(truth.flat, labels.flat, strict=True):
            if true != IGNORE:
                of_truth[true] += 1
                hits[true] += COARSE[label] == true
                if label != 3:
                    of_labels[COARSE[label]] += 1
        on_grid = truth_on_grid(truth, branches.geometry)
        for place in zip(*np.nonzero(on_grid != IGNORE), strict=True):
            wrong.append(COARSE[branches.logits[(slice(None), *place)].argmax()] != on_grid[place])
            logits.append(branches.error_logit[place])
    scores = evaluation.to_dict(two)
    assert list(scores["fused"]["iou"].values()) == pytest.approx(hits / (of_truth + of_labels - hits))
    assert scores["fused"]["accuracy"] == pytest.approx(hits.sum() / of_truth.sum())
    assert scores["fused_ms"]["accuracy"] == pytest.approx(scores["fused"]["accuracy"], abs=0.1)
    assert scores["thresholds"][0]["miou"] == pytest.approx(scores["fused"]["miou"])
    assert scores["errors"]["rate"] == pytest.approx(np.mean(wrong))
    assert scores["errors"]["aupr"] == pytest.approx(average_precision_score(wrong, logits), rel=1e-3)
    assert evaluation.calibrations()["p_ep"] is not None
