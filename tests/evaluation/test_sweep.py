"""The table over thresholds, against its words taken pixel by pixel."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.special import expit, softmax
from sklearn.metrics import jaccard_score, precision_score, recall_score

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.datasets.truth import truth_on_grid
from errseg_rt.evaluation.grid_errors import RHO, GridErrors
from errseg_rt.evaluation.sweep import THRESHOLDS, ThresholdSweep
from errseg_rt.kernels.fuse_labels import fuse_labels_reference

ROW_WORK = (7, 4, 2)
SQUARE = np.ones((3, 3))


def swept(samples, thresholds=THRESHOLDS) -> ThresholdSweep:
    sweep = ThresholdSweep(4, thresholds, row_work=ROW_WORK)
    for truth, branches in samples:
        sweep.add(truth, branches, GridErrors.of(truth, branches))
    return sweep


def test_thresholds_are_those_of_table_1() -> None:
    assert THRESHOLDS == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_rows_equal_the_definitions(sample, geometry) -> None:
    samples = [sample(seed, geometry) for seed in range(3)]
    wrong, p_ep, largest, seen = [], [], [], []
    for truth, branches in samples:
        on_grid = truth_on_grid(truth, branches.geometry)
        valid = on_grid != IGNORE
        p_sb = softmax(branches.logits.astype(np.float64), axis=0)
        wrong.append((p_sb.argmax(axis=0) != on_grid)[valid])
        p_ep.append(expit(branches.error_logit.astype(np.float64))[valid])
        largest.append(p_sb.max(axis=0)[valid])
        rows, cols = branches.geometry.seen()
        seen.append(expit(branches.error_logit[:rows, :cols].astype(np.float64)))
    wrong, p_ep, largest = map(np.concatenate, (wrong, p_ep, largest))
    for row in swept(samples).rows(0.25):
        flagged = p_ep > row.t
        ious = jaccard_score(wrong, flagged, average=None, labels=[0, 1])
        assert row.error_iou == pytest.approx(ious[1])
        assert row.error_miou == pytest.approx(ious.mean())
        assert row.recall == pytest.approx(recall_score(wrong, flagged))
        assert row.precision == pytest.approx(precision_score(wrong, flagged))
        assert row.hard_recall == pytest.approx(flagged[wrong & (largest > RHO)].mean())
        assert row.flagged == pytest.approx(np.mean([(p > row.t).mean() for p in seen]))
        supports = [binary_dilation(b.flagged(row.t), SQUARE, iterations=n) if n else b.flagged(row.t)
                    for _, b in samples for n in (2, 1, 0)]  # fmt: skip
        share = [np.mean(s) * ROW_WORK[k % 3] / sum(ROW_WORK) for k, s in enumerate(supports)]
        assert row.work == pytest.approx(np.sum(share) / len(samples))
        matrix = ConfusionMatrix(4)
        for truth, branches in samples:
            mask = branches.flagged(row.t)
            matrix.add(
                truth,
                fuse_labels_reference(branches.logits, branches.detail_logits, mask, branches.geometry).labels,
            )
        assert row.miou == pytest.approx(matrix.miou(), abs=1e-3)
        assert row.gain == pytest.approx(row.miou - 0.25)


def test_void_everywhere(sample) -> None:
    (row,) = swept([sample(0, void=1.0)], (0.5,)).rows(float("nan"))
    numbers = asdict(row)
    assert numbers.pop("t") == 0.5
    assert 0 < numbers.pop("flagged") < numbers.pop("work") <= 1
    assert set(numbers.values()) == {None}


def test_no_frame() -> None:
    (row,) = swept([], (0.5,)).rows(float("nan"))
    assert set(asdict(row).values()) == {0.5, None}


@pytest.mark.parametrize("is_wrong", [True, False], ids=["all_errors", "no_errors"])
def test_one_kind_of_pixel(sample, is_wrong) -> None:
    truth, branches = sample(0, void=0.0)
    branches.logits[:] = 0
    branches.logits[3] = 40
    truth[:] = 0 if is_wrong else 3
    rows = swept([(truth, branches)]).rows(0.0)
    for row in rows:
        if is_wrong:
            assert row.precision == 1
            assert row.error_iou == row.recall == row.hard_recall
            assert row.error_miou == pytest.approx(row.error_iou / 2)
        else:
            assert (row.recall, row.hard_recall, row.error_iou, row.precision) == (None, None, 0, 0)


def test_hard_errors_are_sure_and_wrong(sample) -> None:
    truth, branches = sample(1)
    errors = GridErrors.of(truth, branches)
    largest = softmax(branches.logits[:, errors.valid].astype(np.float64), axis=0).max(axis=0)
    np.testing.assert_array_equal(errors.hard, errors.wrong & (largest > 0.95))
    assert errors.hard.any()
    assert (errors.wrong & ~errors.hard).any()
