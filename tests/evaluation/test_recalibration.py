"""New maps, held against frames that they were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.evaluation.error_maps import SCORES, ErrorMaps
from errseg_rt.evaluation.fit import fit_calibration
from errseg_rt.evaluation.grid_errors import GridErrors
from errseg_rt.evaluation.recalibration import cross_validated, recalibrated, reliability


def part(seed, count=4000, shift=0.0):
    """Pixels whose errors happen at a known rate of every score; each score says it on an axis of its own."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=count) * 2
    wrong = rng.random(count) < expit(logit + shift - 2)
    return {name: logit * (1 + index) for index, name in enumerate(SCORES)}, wrong


def counted(*parts) -> ErrorMaps:
    maps = ErrorMaps()
    for logits, wrong in parts:
        maps.add(GridErrors(np.ones(len(wrong), bool), wrong, logits))
    return maps


def test_every_fold_is_judged_by_a_map_of_the_others() -> None:
    parts = [part(seed, shift=seed / 2) for seed in range(3)]
    found = cross_validated([counted(one) for one in parts])
    assert tuple(found) == SCORES
    for name in SCORES:
        probability, truth = [], []
        for held in range(3):
            others = [one for index, one in enumerate(parts) if index != held]
            fitted = fit_calibration(
                np.concatenate([logits[name] for logits, _ in others]), np.concatenate([wrong for _, wrong in others])
            )
            probability.append(fitted(parts[held][0][name]))
            truth.append(parts[held][1])
        probability, truth = np.concatenate(probability).astype(float), np.concatenate(truth)
        groups = np.array_split(np.argsort(probability, kind="stable"), 15)
        ece = np.mean([abs(probability[group].mean() - truth[group].mean()) for group in groups])
        assert found[name]["brier"] == pytest.approx(brier_score_loss(truth, probability), abs=1e-3)
        assert found[name]["ece"] == pytest.approx(ece, abs=2e-3)


def test_what_was_seen_looks_better_than_what_was_not() -> None:
    parts = [part(seed, count=200, shift=seed) for seed in range(4)]
    maps = counted(*parts)
    seen = reliability(maps, maps.fit()["p_ep"], "p_ep")
    assert seen.ece < cross_validated([counted(one) for one in parts])["p_ep"]["ece"]


@pytest.mark.parametrize("folds", [[], [[0]], [[0], [], []]], ids=["none", "one", "one_with_pixels"])
def test_one_fold_cannot_judge_itself(folds) -> None:
    found = cross_validated([counted(*map(part, seeds)) for seeds in folds])
    assert found == {name: {"ece": None, "brier": None} for name in SCORES}


def test_empty_folds_are_left_out() -> None:
    parts = [counted(part(seed)) for seed in range(2)]
    assert cross_validated([parts[0], counted(), parts[1]]) == cross_validated(parts)


def test_reliability_of_a_map() -> None:
    logits, wrong = part(0)
    found = reliability(counted((logits, wrong)), Calibration((0.0,), (0.5,)), "margin")
    assert found.brier == pytest.approx(0.25)
    assert found.ece == pytest.approx(abs(np.mean([g.mean() for g in np.array_split(wrong, 1)]) - 0.5), abs=0.2)


@pytest.mark.parametrize("threshold", [None, 0.4])
def test_the_new_manifest(manifest: Manifest, threshold) -> None:
    maps = counted(part(0))
    new = recalibrated(manifest, maps, name="mine", note="3 frames", threshold=threshold)
    assert new.calibration == maps.fit()["p_ep"]
    assert new.baseline_calibrations == {name: maps.fit()[name] for name in SCORES[1:]}
    assert (new.name, new.provenance["calibration"]) == ("mine", "3 frames")
    assert new.threshold == (threshold or manifest.threshold)
    assert new.lowest_threshold == 0.1
    assert (new.classes, new.input, new.metrics) == (manifest.classes, manifest.input, manifest.metrics)
    assert Manifest.from_json(new.to_json(), "here") == new
    assert "calibration" not in manifest.provenance


def test_without_a_pixel_there_is_no_map(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="no pixel to fit a calibration on"):
        recalibrated(manifest, ErrorMaps(), name="mine", note="", threshold=None)
