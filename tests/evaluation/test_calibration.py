"""Calibration maps: what they say is what happens, on frames that they were fitted on and on others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.evaluation.calibration import (
    KNOTS,
    cross_validated,
    fit_calibration,
    fit_calibrations,
    not_better,
    recalibrated,
    reliability_over,
)
from errseg_rt.evaluation.error_maps import SCORES, ErrorMaps, GridErrors
from errseg_rt.evaluation.error_scores import reliability
from errseg_rt.evaluation.histogram import ErrorHistogram

CLOSE = 2e-4  # how far a bin's centre is from a logit near 0, and relative to a larger one


def synthetic(rate, count=200_000, seed=0):
    """Error logits, and errors that happen at a known rate of them."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(scale=2, size=count).astype(np.float32)
    return logit, rng.random(count) < rate(logit)


def binned(logit, wrong) -> ErrorHistogram:
    histogram = ErrorHistogram()
    histogram.add(np.asarray(logit), np.asarray(wrong, bool))
    return histogram


def fitted(logit, wrong, **options) -> Calibration:
    return fit_calibration(binned(logit, wrong), **options)


def map_of_pixels(logit, wrong, knots=KNOTS) -> Calibration:
    """The definition, on pixels of which no two are alike."""
    order = np.argsort(logit)
    mass = np.where(wrong, 1 / wrong.sum(), 1 / (~wrong).sum())[order]
    group = np.minimum((mass.cumsum() - mass / 2) / 2 * knots, knots - 1).astype(int)
    parts = [order[group == index] for index in range(knots)]
    rates, sizes = [wrong[part].mean() for part in parts], [len(part) for part in parts]
    rising = IsotonicRegression().fit_transform(range(knots), rates, sample_weight=sizes)
    return Calibration(tuple(logit[part].mean(dtype=np.float64) for part in parts), tuple(rising))


@pytest.mark.parametrize(
    "rate",
    [expit, lambda x: 0.05 * expit(x), lambda x: np.clip(0.1 * x, 0, 0.5)],
    ids=["calibrated", "overstated", "kinked"],
)
def test_map_equals_the_known_rates(rate) -> None:
    logit, wrong = synthetic(rate)
    calibration = fitted(logit, wrong)
    assert len(calibration.logits) == KNOTS
    # Between the knots the map is linear and the groups are narrow; chance moves a knot by sqrt(p (1 - p) / n).
    at = np.linspace(*np.quantile(logit, [0.01, 0.99]), 200)
    wanted = rate(at)
    pixels = len(logit) / (4 * KNOTS)
    assert (np.abs(calibration(at) - wanted) <= 4.5 * np.sqrt(wanted * (1 - wanted) / pixels) + 5e-3).all()


def test_knots_are_groups_of_equal_mass_of_both_kinds() -> None:
    logit, _ = binned(*synthetic(expit, count=20_000)).filled()  # one pixel a bin, at its centre
    wrong = np.random.default_rng(1).random(len(logit)) < 0.1 * expit(logit)
    calibration, wanted = fitted(logit, wrong, knots=8), map_of_pixels(logit, wrong, knots=8)
    np.testing.assert_allclose(calibration.logits, wanted.logits, atol=1e-9)
    np.testing.assert_allclose(calibration.probabilities, wanted.probabilities, atol=1e-9)


def test_rare_errors_have_knots_of_their_own() -> None:
    logit, wrong = synthetic(lambda x: expit(3 * (x - 5)), count=100_000)
    assert wrong.mean() < 0.02
    calibration = fitted(logit, wrong)
    # Even groups of pixels would end with a mean over the last three hundredths, errors and not.
    assert sum(p > 0.1 for p in calibration.probabilities) > KNOTS / 4
    assert calibration.probabilities[-1] > 0.9


def test_mean_over_the_pixels_is_the_rate_of_errors() -> None:
    logit, wrong = synthetic(lambda x: 0.3 * expit(x))
    calibration = fitted(logit, wrong)
    # Isotonic regression keeps the mean; between knots the map is linear, which a group's width limits.
    assert calibration(logit).mean() == pytest.approx(wrong.mean(), rel=0.02)


def test_unseen_pixels_are_calibrated() -> None:
    rate = lambda x: 0.2 * expit(2 * x)  # noqa: E731
    calibration = fitted(*synthetic(rate, seed=1))
    logit, wrong = synthetic(rate, seed=2)
    assert reliability(binned(logit, wrong), calibration).ece < 0.005


@pytest.mark.parametrize("seed", range(5))
def test_map_never_falls(seed) -> None:
    rng = np.random.default_rng(seed)
    logit, wrong = rng.normal(size=500), rng.random(500) < 0.3  # errors that know nothing of the logit
    calibration = fitted(logit, wrong)
    line = calibration(np.linspace(-10, 10, 1001))
    assert (np.diff(line) >= 0).all()
    assert 0 <= line.min() <= line.max() <= 1
    assert len(set(calibration.probabilities)) < len(calibration.probabilities)


def test_map_is_constant_beyond_its_ends() -> None:
    calibration = fitted(*synthetic(expit, 5000))
    low, high = calibration(np.array([-1e6, 1e6]))
    assert (low, high) == pytest.approx((calibration.probabilities[0], calibration.probabilities[-1]))


def test_bins_give_the_map_of_their_pixels() -> None:
    logit, wrong = synthetic(lambda x: 0.3 * expit(x))
    histogram = ErrorHistogram()
    for part in np.array_split(np.arange(len(logit)), 7):
        histogram.add(logit[part], wrong[part])
    at = np.linspace(-5, 5, 300)
    np.testing.assert_allclose(fit_calibration(histogram)(at), map_of_pixels(logit, wrong)(at), rtol=0, atol=1e-3)


def test_equal_logits_share_a_knot() -> None:
    saturated = np.float32(np.log(1e-6))
    logit = np.concatenate([np.full(9001, saturated, np.float32), np.linspace(0, 1, 999, dtype=np.float32)])
    wrong = np.zeros(10_000, bool)
    wrong[:90] = True
    wrong[9001:] = True
    calibration = fitted(logit, wrong)
    assert calibration.logits[0] == pytest.approx(saturated, rel=CLOSE)
    assert calibration.probabilities[0] == pytest.approx(90 / 9001)


@pytest.mark.parametrize(("wrong", "probability"), [(True, 1.0), (False, 0.0)])
def test_one_pixel_is_enough(wrong, probability) -> None:
    calibration = fitted(np.array([0.5]), np.array([wrong]))
    assert calibration.logits == pytest.approx((0.5,), abs=CLOSE)
    assert calibration.probabilities == (probability,)


def test_fewer_pixels_than_knots() -> None:
    calibration = fitted(np.array([3.0, 1.0, 2.0]), np.array([True, False, False]), knots=10)
    assert calibration.logits == pytest.approx((1.0, 2.0, 3.0), rel=CLOSE)
    assert calibration.probabilities == (0.0, 0.0, 1.0)


def test_all_logits_equal() -> None:
    calibration = fitted(np.full(100, 2.0), np.arange(100) < 25)
    assert calibration.logits == pytest.approx((2.0,), rel=CLOSE)
    assert calibration.probabilities == pytest.approx((0.25,))


def test_infinite_logits_have_knots_like_others() -> None:
    calibration = fitted([-np.inf, 0.0, np.inf], [False, False, True])
    assert np.isfinite(calibration.logits).all()
    assert calibration.probabilities == (0.0, 0.0, 1.0)


def test_bins_must_hold_pixels() -> None:
    with pytest.raises(ValueError, match="no pixel to fit a calibration on"):
        fit_calibration(ErrorHistogram())


def part(seed, count=4000, shift=0.0):
    """Pixels whose errors happen at a known rate of every score; each score says it on an axis of its own."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=count) * 2
    wrong = rng.random(count) < expit(logit + shift - 2)
    return {name: logit * (1 + index) for index, name in enumerate(SCORES)}, wrong


def counted(*parts) -> ErrorMaps:
    maps = ErrorMaps()
    for logits, wrong in parts:
        maps.add(GridErrors(np.ones(len(wrong), bool), wrong, logits, *np.zeros((2, len(wrong)), np.uint8)))
    return maps


def test_every_fold_is_judged_by_a_map_of_the_others() -> None:
    parts = [part(seed, shift=seed / 2) for seed in range(3)]
    found = cross_validated([counted(one) for one in parts])
    assert tuple(found) == SCORES
    for name in SCORES:
        ece, brier = [], []
        for held in range(3):
            others = [one for index, one in enumerate(parts) if index != held]
            calibration = map_of_pixels(
                np.concatenate([logits[name] for logits, _ in others]), np.concatenate([wrong for _, wrong in others])
            )
            probability, truth = calibration(parts[held][0][name]).astype(float), parts[held][1]
            ece.append(error_of(probability, truth))
            brier.append(brier_score_loss(truth, probability))
        assert found[name]["brier"] == pytest.approx(np.mean(brier), abs=1e-3)
        assert found[name]["ece"] == pytest.approx(np.mean(ece), abs=2e-3)


def error_of(probability, truth, groups=15) -> float:
    """Equal-mass calibration error, by its definition."""
    parts = np.array_split(np.argsort(probability, kind="stable"), groups)
    return np.mean([abs(probability[part].mean() - truth[part].mean()) for part in parts])


def test_biases_of_folds_do_not_cancel() -> None:
    """One fold errs more than the map says, the other as much less: together, they would seem right."""
    rng = np.random.default_rng(3)
    logit = rng.normal(size=20_000)
    rate = np.clip(0.5 + 0.1 * logit, 0, 1)
    calibration = Calibration((-5.0, 5.0), (0.0, 1.0))
    folds = []
    for shift in (-0.15, 0.15):
        wrong = rng.random(logit.size) < rate + shift
        folds.append(counted((dict.fromkeys(SCORES, logit), wrong)))
    found = reliability_over(folds, {"p_ep": calibration})
    pooled = reliability(ErrorMaps.sum(folds).histograms["p_ep"], calibration)
    assert pooled.ece < 0.02
    assert found["p_ep"]["ece"] == pytest.approx(0.15, abs=0.01)
    assert found["p_ep"]["brier"] == pytest.approx(pooled.brier)  # a mean over pixels, which folds do not change


def test_folds_count_by_their_pixels() -> None:
    logits, wrong = part(0, count=900)
    small, large = counted(part(1, count=100)), counted((logits, wrong))
    calibration = Calibration((-1.0, 1.0), (0.2, 0.4))
    each = [reliability(fold.histograms["margin"], calibration) for fold in (small, large)]
    found = reliability_over([small, counted(), large], {"margin": calibration})["margin"]
    assert found == {key: pytest.approx(np.average([getattr(e, key) for e in each], weights=[1, 9]))
                     for key in ("ece", "brier")}  # fmt: skip
    assert reliability_over([counted()], {"margin": calibration}) == {"margin": {"ece": None, "brier": None}}


@pytest.mark.parametrize(
    ("new", "is_kept"),
    [((0.1, 0.2), False), ((0.1, 0.3), True), ((0.2, 0.2), True), ((0.3, 0.2), True), ((0.3, 0.4), True),
     ((None, None), False)],
)  # fmt: skip
def test_a_map_is_better_in_both_scores_or_not_at_all(new, is_kept) -> None:
    old = {"p_ep": {"ece": 0.2, "brier": 0.3}}
    found = {name: dict(zip(("ece", "brier"), new, strict=True)) for name in SCORES}
    assert not_better(old, found) == (["p_ep"] if is_kept else [])


def test_maps_that_are_kept_are_as_they_were(manifest: Manifest) -> None:
    maps = counted(part(0))
    old = recalibrated(manifest, counted(part(5)), name="old", note="others", threshold=None)
    new = recalibrated(old, maps, name="new", note="these", threshold=None, kept=["p_ep", "margin"])
    fits = fit_calibrations(maps)
    assert (new.calibration, new.provenance) == (old.calibration, old.provenance)
    assert new.baseline_calibrations == {
        "max_softmax": fits["max_softmax"],
        "entropy": fits["entropy"],
        "margin": old.baseline_calibrations["margin"],
    }


def test_what_was_seen_looks_better_than_what_was_not() -> None:
    parts = [part(seed, count=200, shift=seed) for seed in range(4)]
    maps = counted(*parts)
    seen = reliability(maps.histograms["p_ep"], fit_calibrations(maps)["p_ep"])
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
    found = reliability(binned(logits["margin"], wrong), Calibration((0.0,), (0.5,)))
    assert found.brier == pytest.approx(0.25)
    assert found.ece == pytest.approx(abs(np.mean([g.mean() for g in np.array_split(wrong, 1)]) - 0.5), abs=0.2)


@pytest.mark.parametrize("threshold", [None, 0.4])
def test_the_new_manifest(manifest: Manifest, threshold) -> None:
    maps = counted(part(0))
    new = recalibrated(manifest, maps, name="mine", note="3 frames", threshold=threshold)
    fits = {name: fitted(logits, part(0)[1]) for name, logits in part(0)[0].items()}
    assert new.calibration == fits.pop("p_ep")
    assert new.baseline_calibrations == fits
    assert (new.name, new.provenance["calibration"]) == ("mine", "3 frames")
    assert new.threshold == (threshold or manifest.threshold)
    assert new.lowest_threshold == 0.1
    assert (new.classes, new.input, new.metrics) == (manifest.classes, manifest.input, manifest.metrics)
    assert Manifest.from_json(new.to_json(), "here") == new
    assert "calibration" not in manifest.provenance


def test_without_a_pixel_there_is_no_map(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="no pixel to fit a calibration on"):
        recalibrated(manifest, ErrorMaps(), name="mine", note="", threshold=None)
