"""How right the error probabilities of both labels are, against sums over the pixels themselves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.truth import truth_on_grid
from errseg_rt.evaluation.calibration import fit_calibration
from errseg_rt.evaluation.error_maps import DETAIL, P_EP
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.kernels.fuse_labels import upsample_reference

P_EP_MAP = Calibration((-4.0, 0.0, 4.0), (0.05, 0.3, 0.8))
DETAIL_MAP = Calibration((-3.0, 1.0), (0.1, 0.6))
T = 0.6


def pixels(samples, maps, coarse=None, above_t=T):
    """Of all valid grid pixels: flagged, semantic label, final label, true one, both probabilities."""
    parts = []
    for truth, branches in samples:
        on_grid = truth_on_grid(truth, branches.geometry)
        flagged = branches.flagged(T)
        semantic, detail = branches.logits.argmax(axis=0), branches.detail_logits.argmax(axis=0)
        final = np.where(flagged, detail, semantic)
        if coarse is not None:
            semantic, final = coarse[semantic], coarse[final]
        by_p_ep = np.interp(branches.error_logit, P_EP_MAP.logits, P_EP_MAP.probabilities)
        top = softmax(branches.detail_logits.astype(np.float64), axis=0).max(axis=0)
        of_detail = np.interp(np.log(1 - top) - np.log(top), DETAIL_MAP.logits, DETAIL_MAP.probabilities)
        above = flagged & (expit(branches.error_logit.astype(np.float64)) > above_t)
        given = np.where(above, of_detail, by_p_ep) if DETAIL in maps else by_p_ep
        parts.append([each[on_grid != IGNORE] for each in (flagged, semantic, final, on_grid, by_p_ep, given)])
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def evaluated(samples, maps, **how) -> Evaluation:
    found = Evaluation(4, T, calibrations=maps, **how)
    for truth, branches in samples:
        found.add(truth, branches)
    return found


@pytest.mark.parametrize("has_map", [True, False], ids=["own_map", "p_eps_map"])
@pytest.mark.parametrize("coarse", [None, [1, 1, 2, 255]], ids=["same_classes", "merged"])
@pytest.mark.parametrize("above", [None, 0.3, 0.8])
def test_figures_are_those_of_the_pixels(sample, classes: ClassSet, has_map, coarse, above) -> None:
    samples, maps = [sample(seed) for seed in range(6)], {P_EP: P_EP_MAP, **({DETAIL: DETAIL_MAP} if has_map else {})}
    table = None if coarse is None else np.array(coarse + [IGNORE] * 252, np.uint8)
    told = evaluated(samples, maps, coarse=table, detail_threshold=above).to_dict(classes)["label_errors"]
    flagged, semantic, final, truth, by_p_ep, given = pixels(samples, maps, table, above or T)
    assert 0 < flagged.sum() < flagged.size
    for label, labels, probability in (("semantic", semantic, by_p_ep), ("final", final, given)):
        wrong = labels != truth
        for region, at in (("flagged", flagged), ("elsewhere", ~flagged), ("all", np.ones_like(flagged))):
            found = told[label][region]
            assert found["pixels"] == at.sum()
            assert found["true"] == pytest.approx(wrong[at].mean())
            assert found["expected"] == pytest.approx(probability[at].mean(), abs=1e-4)
            assert found["brier"] == pytest.approx(np.mean((probability[at] - wrong[at]) ** 2), abs=1e-4)
            assert 0 <= found["ece"] <= found["worst_decile"] <= 1
        error = 0.0
        for index, name in enumerate(classes.names):
            of_class, shares = labels == index, told[label]["classes"][name]
            if not of_class.any():
                assert shares == {"expected": None, "true": None}
                continue
            assert shares["expected"] == pytest.approx(probability[of_class].mean(), abs=1e-4)
            assert shares["true"] == pytest.approx(wrong[of_class].mean())
            error += abs(probability[of_class].sum() - wrong[of_class].sum())
        assert told[label]["class_error"] == pytest.approx(error / (labels < 4).sum(), abs=1e-4)


def test_the_map_that_is_fitted_is_of_the_detail_branchs_doubt_where_pixels_were_flagged(sample) -> None:
    samples = [sample(seed) for seed in range(6)]
    found = evaluated(samples, None)
    flagged, _, final, truth, _, _ = pixels(samples, {})
    given = found.errors.given
    assert given.counts.sum(axis=0).tolist() == np.bincount((final != truth)[flagged], minlength=2).tolist()
    assert found.calibrations()[DETAIL] == fit_calibration(given)
    assert found.label_errors is None


def test_errors_of_frames_are_those_of_the_final_labels(sample, classes: ClassSet) -> None:
    samples = [sample(seed) for seed in range(4)]
    found = evaluated(samples, {P_EP: P_EP_MAP, DETAIL: DETAIL_MAP}).frame_errors
    for (truth, branches), expected in zip(samples, found.expected, strict=True):
        flagged = branches.flagged(T)
        top = softmax(branches.detail_logits.astype(np.float64), axis=0).max(axis=0)
        doubt = np.log(1 - top) - np.log(top)
        on_grid = np.where(flagged, DETAIL_MAP(doubt), P_EP_MAP(branches.error_logit)).astype(np.float32)
        wanted = upsample_reference(on_grid, branches.geometry)[truth != IGNORE].mean()
        assert expected == pytest.approx(wanted, abs=1e-5)


def test_without_a_detail_branch_there_is_one_label(sample, classes: ClassSet) -> None:
    found = Evaluation(4, T, calibrations={P_EP: P_EP_MAP}, branches=("semantic", "error"))
    truth, branches = sample(0)
    found.add(truth, replace(branches, detail_logits=None))
    assert "label_errors" not in found.to_dict(classes)
    assert DETAIL not in found.calibrations()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("threshold", [1e-6, 1 - 1e-6], ids=["all_flagged", "none_flagged"])
@pytest.mark.parametrize("void", [0.0, 1.0], ids=["labelled", "void"])
def test_regions_without_a_pixel_are_none(sample, classes: ClassSet, threshold, void) -> None:
    found = Evaluation(4, threshold, calibrations={P_EP: P_EP_MAP, DETAIL: DETAIL_MAP})
    truth, branches = sample(0)
    found.add(np.full_like(truth, IGNORE) if void else truth, branches)
    told = json.loads(json.dumps(found.to_dict(classes)["label_errors"], allow_nan=False))
    empty = "elsewhere" if threshold < 0.5 else "flagged"
    for label in ("semantic", "final"):
        assert told[label][empty]["pixels"] == 0
        assert {told[label][empty][key] for key in ("expected", "true", "ece", "brier", "worst_decile")} == {None}
        assert (told[label]["all"]["expected"] is None) == (told[label]["class_error"] is None) == bool(void)
