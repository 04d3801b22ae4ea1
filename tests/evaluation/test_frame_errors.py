"""Errors of whole frames, foretold and true, against scipy and against sums over pixels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import entropy, linregress

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import IGNORE
from errseg_rt.evaluation.error_maps import BASELINES, SCORES
from errseg_rt.evaluation.frame_errors import FrameErrors
from errseg_rt.kernels.fuse_labels import upsample_reference

NAMES = ("a", "b", "c", "d")


def frames(sample, geometry, count=12):
    """Truths, branches and labels, of frames that are more wrong the further on they are."""
    for seed in range(count):
        truth, branches = sample(seed, geometry)
        rng = np.random.default_rng(100 + seed)
        noise = rng.integers(0, 4, truth.shape).astype(np.uint8)
        labels = np.where((rng.random(truth.shape) < seed / count) | (truth == IGNORE), noise, truth)
        branches.error_logit[:] += seed / 2 - 3
        yield truth, branches, labels.astype(np.uint8)


def counted(samples, calibrations) -> FrameErrors:
    found = FrameErrors(4, calibrations)
    for truth, branches, labels in samples:
        found.add(branches, labels, labels != truth, truth != IGNORE)
    return found


def scores_of(branches) -> dict[str, np.ndarray]:
    p = softmax(branches.logits.astype(np.float64), axis=0)
    second, top = np.sort(p, axis=0)[-2:]
    return {
        "p_ep": expit(branches.error_logit.astype(np.float64)),
        "max_softmax": 1 - top,
        "entropy": entropy(p, axis=0) / np.log(4),
        "margin": 1 - (top - second),
    }


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_figures_are_those_of_scipy(sample, geometry, is_calibrated) -> None:
    samples = list(frames(sample, geometry))
    curve = Calibration((-4.0, 0.0, 4.0), (0.01, 0.2, 0.9))
    found = counted(samples, dict.fromkeys(SCORES, curve) if is_calibrated else {})
    told = found.to_dict(NAMES)
    true = [np.mean((labels != truth)[truth != IGNORE]) for truth, _, labels in samples]
    assert found.true == pytest.approx(true)
    assert told["frames"] == len(samples)
    assert told["true"] == pytest.approx(np.mean(true))
    assert told["constant"] == pytest.approx(np.mean(np.abs(true - np.mean(true))))
    for name in SCORES:
        expected = []
        for truth, branches, _ in samples:
            score = scores_of(branches)[name]
            logit = np.log(score) - np.log1p(-score)
            score = np.interp(logit, curve.logits, curve.probabilities) if is_calibrated else score
            expected.append(upsample_reference(score.astype(np.float32), geometry)[truth != IGNORE].mean())
        line = linregress(expected, true)
        figures = told if name == "p_ep" else told["baselines"][name]
        assert figures["expected"] == pytest.approx(np.mean(expected), rel=1e-4)
        assert figures["correlation"] == pytest.approx(line.rvalue, rel=1e-3)
        assert figures["slope"] == pytest.approx(line.slope, rel=1e-3)
        assert figures["difference"] == pytest.approx(np.mean(np.abs(np.subtract(expected, true))), rel=1e-3)
        if name == "p_ep":
            assert found.expected == pytest.approx(expected, rel=1e-4)


def test_precision_of_a_class_is_what_is_right_of_its_labels(sample, geometry) -> None:
    samples = list(frames(sample, geometry, count=4))
    told = counted(samples, {}).to_dict(NAMES)["precision"]
    for index, name in enumerate(NAMES):
        pixels, expected, right, off = 0, 0.0, 0.0, 0.0
        for truth, branches, labels in samples:
            full = upsample_reference(expit(branches.error_logit).astype(np.float32), geometry)
            of_class = (labels == index) & (truth != IGNORE)
            pixels += of_class.sum()
            expected += (1 - full[of_class]).sum()
            right += (truth[of_class] == index).sum()
            off += abs((1 - full[of_class]).sum() - (truth[of_class] == index).sum())
        wanted = {"expected": expected / pixels, "true": right / pixels, "difference": off / pixels}
        assert told[name] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["none", "void", "one", "alike", "right"])
def test_what_is_not_known_is_none(sample, geometry, case) -> None:
    truth, branches, labels = next(iter(frames(sample, geometry)))
    if case == "void":
        truth[:] = IGNORE
    if case == "right":
        truth[:] = labels
    samples = {"none": [], "alike": [(truth, branches, labels)] * 3}.get(case, [(truth, branches, labels)])
    found = counted(samples, {})
    told = json.loads(json.dumps(found.to_dict(NAMES), allow_nan=False))
    assert told["correlation"] is None
    assert {figures["slope"] for figures in (told, *told["baselines"].values())} == {None}
    if case in ("none", "void"):
        assert (told["frames"], told["true"], told["constant"], told["difference"]) == (0, None, None, None)
        assert set(told["precision"]["a"].values()) == {None}
        assert found.expected == found.true == [None] * len(samples)
    else:
        assert told["difference"] >= 0


def test_frames_of_void_keep_their_place(sample, geometry) -> None:
    first, second, third = frames(sample, geometry, count=3)
    second[0][:] = IGNORE
    found = counted([first, second, third], {})
    assert [rate is None for rate in found.expected] == [rate is None for rate in found.true] == [False, True, False]
    assert found.to_dict(NAMES) == counted([first, third], {}).to_dict(NAMES)


def test_a_cascade_without_an_error_map_foretells_nothing(sample) -> None:
    truth, branches = sample(0)
    with pytest.raises(ValueError, match="there is no error map to score"):
        FrameErrors(4, {}).add(replace(branches, error_logit=None), truth, truth != 0, truth != IGNORE)
    assert set(BASELINES) < set(SCORES)
