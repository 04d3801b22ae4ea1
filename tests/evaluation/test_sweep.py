"""The table over thresholds, against its words taken pixel by pixel, and the threshold that comes of it."""

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
from errseg_rt.evaluation.error_maps import RHO, GridErrors
from errseg_rt.evaluation.sweep import THRESHOLDS, ThresholdSweep, propose
from errseg_rt.kernels.fuse_labels import fuse_labels_reference
from errseg_rt.kernels.select import Layers

LAYERS = Layers((7, 4, 2), (1, 1, 3))
SQUARE = np.ones((3, 3))


def swept(samples, thresholds=THRESHOLDS) -> ThresholdSweep:
    sweep = ThresholdSweep(4, thresholds, layers=LAYERS)
    for truth, branches in samples:
        sweep.add(truth, branches, GridErrors.of(truth, branches))
    return sweep


def nothing_flagged(samples) -> ConfusionMatrix:
    matrix = ConfusionMatrix(4)
    for truth, branches in samples:
        matrix.add(truth, fuse_labels_reference(branches.logits, None, None, branches.geometry).labels)
    return matrix


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
    plain = nothing_flagged(samples)
    rows = swept(samples).rows(plain)
    assert tuple(row.t for row in rows) == THRESHOLDS
    for row in rows:
        flagged = p_ep > row.t
        ious = jaccard_score(wrong, flagged, average=None, labels=[0, 1])
        assert row.error_iou == pytest.approx(ious[1])
        assert row.error_miou == pytest.approx(ious.mean())
        assert row.recall == pytest.approx(recall_score(wrong, flagged))
        assert row.precision == pytest.approx(precision_score(wrong, flagged))
        assert row.hard_recall == pytest.approx(flagged[wrong & (largest > RHO)].mean())
        assert row.flagged == pytest.approx(np.mean([(p > row.t).mean() for p in seen]))
        supports = [binary_dilation(b.flagged(row.t), SQUARE, iterations=n) if n else b.flagged(row.t)
                    for _, b in samples for n in (1, 1, 0)]  # fmt: skip
        share = [np.mean(s) * LAYERS.work[k % 3] / 13 for k, s in enumerate(supports)]
        assert row.work == pytest.approx(np.sum(share) / len(samples))
        matrix = ConfusionMatrix(4)
        for truth, branches in samples:
            mask = branches.flagged(row.t)
            matrix.add(
                truth,
                fuse_labels_reference(branches.logits, branches.detail_logits, mask, branches.geometry).labels,
            )
        assert row.miou == pytest.approx(matrix.miou(), abs=1e-3)
        # The four classes are in every truth.
        assert row.gain == pytest.approx(row.miou - plain.miou())


def test_what_a_row_costs_may_not_be_known(sample) -> None:
    """Equal parts would be a share of some other stage: nothing is made up."""
    sweep = ThresholdSweep(4, (0.5,))
    truth, branches = sample(0)
    sweep.add(truth, branches, GridErrors.of(truth, branches))
    (row,) = sweep.rows(nothing_flagged([(truth, branches)]))
    assert row.work is None
    assert row.flagged == pytest.approx(branches.flagged(0.5).sum() / np.prod(branches.geometry.seen()))
    assert propose(sweep, nothing_flagged([(truth, branches)])) is None


def test_void_everywhere(sample) -> None:
    (row,) = swept([sample(0, void=1.0)], (0.5,)).rows(ConfusionMatrix(4))
    numbers = asdict(row)
    assert numbers.pop("t") == 0.5
    assert 0 < numbers.pop("flagged") < numbers.pop("work") <= 1
    assert set(numbers.values()) == {None}


def test_a_stray_class_costs_a_gain_its_pixels_alone(sample, geometry) -> None:
    """Some pixels that become a class nobody wanted there: over the classes of the truth, by its definition."""
    truth, branches = sample(0, geometry)
    truth[truth == 3] = IGNORE
    branches.logits[3] = -50
    rows, cols = geometry.seen()
    branches.detail_logits[:] = branches.logits
    branches.error_logit[:] = -5
    branches.error_logit[rows // 2, cols // 2] = 5
    branches.detail_logits[3, rows // 2, cols // 2] = 50
    fused = fuse_labels_reference(
        branches.logits, branches.detail_logits, branches.flagged(0.5), branches.geometry
    ).labels
    valid, plain = truth != IGNORE, fuse_labels_reference(branches.logits, None, None, branches.geometry).labels
    assert (fused[valid] == 3).any()
    macro = {"average": "macro", "labels": [0, 1, 2]}
    wanted = [jaccard_score(truth[valid], labels[valid], **macro) for labels in (fused, plain)]
    (row,) = swept([(truth, branches)], (0.5,)).rows(nothing_flagged([(truth, branches)]))
    assert row.gain == pytest.approx(wanted[0] - wanted[1])
    assert -0.1 < row.gain < 0
    assert row.miou < 0.8 * wanted[0]  # over four classes, of which one has no pixel


def test_no_frame() -> None:
    (row,) = swept([], (0.5,)).rows(ConfusionMatrix(4))
    assert set(asdict(row).values()) == {0.5, None}


@pytest.mark.parametrize("is_wrong", [True, False], ids=["all_errors", "no_errors"])
def test_one_kind_of_pixel(sample, is_wrong) -> None:
    truth, branches = sample(0, void=0.0)
    branches.logits[:] = 0
    branches.logits[3] = 40
    truth[:] = 0 if is_wrong else 3
    rows = swept([(truth, branches)]).rows(nothing_flagged([(truth, branches)]))
    assert len(rows) == len(THRESHOLDS)
    for row in rows:
        if is_wrong:
            assert row.precision == 1
            assert row.error_iou == row.recall == row.hard_recall
            assert row.error_miou == pytest.approx(row.error_iou / 2)
        else:
            assert (row.recall, row.hard_recall, row.error_iou, row.precision) == (None, None, 0, 0)


class Row:
    def __init__(self, t, gain, work):
        self.t, self.gain, self.work, self.flagged = t, gain, work, work and work / 2


class Sweep:
    """Rows as given; each frame takes the mean work, more or less."""

    def __init__(self, rows):
        self.given = [Row(*row) for row in rows]
        self.work = {row.t: [row.work * part for part in np.linspace(0.5, 1.5, 101)] for row in self.given if row.work}

    def rows(self, without):
        return self.given


def test_the_cheapest_that_keeps_95_percent_of_the_gain() -> None:
    sweep = Sweep([(0.1, 0.0100, 0.4), (0.5, 0.0099, 0.2), (0.7, 0.0095, 0.1), (0.9, 0.0094, 0.05)])
    found = propose(sweep, 0.5)
    assert (found.t, found.gain, found.work, found.flagged) == (0.7, 0.0095, 0.1, 0.05)
    assert found.budget == pytest.approx(0.1 * 1.45)
    assert np.mean(np.array(sweep.work[0.7]) <= found.budget + 1e-12) >= 0.95


def test_a_gain_that_falls_again_is_left_aside() -> None:
    found = propose(Sweep([(0.1, -0.02, 0.4), (0.5, 0.01, 0.2), (0.9, 0.001, 0.05)]), 0.5)
    assert found.t == 0.5


@pytest.mark.parametrize(
    "rows", [[], [(0.5, 0.0, 0.2)], [(0.3, -0.1, 0.3), (0.5, -0.2, 0.2)], [(0.5, None, 0.2)], [(0.5, None, None)]]
)
def test_where_nothing_gains_nothing_is_proposed(rows) -> None:
    assert propose(Sweep(rows), 0.5) is None
