"""A torch cascade on labelled frames: its branches, what its method makes of them, and kept taps in place of frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from scipy.special import expit, softmax
from scipy.stats import entropy

from errseg_rt.bundle.classes import CAMVID
from errseg_rt.datasets import FolderData
from errseg_rt.networks import Cascade
from errseg_rt.networks.cascade import flag
from errseg_rt.training.data import normalise
from errseg_rt.training.evaluation import branches_of, evaluate
from errseg_rt.training.methods import answer, flagged_by
from errseg_rt.training.recipe_learning import MethodConfig
from errseg_rt.training.taps import TapStore


@pytest.fixture(scope="module")
def doubtful(recipe):
    """A cascade whose branches differ, and whose doubt differs from pixel to pixel."""
    torch.manual_seed(0)
    cascade = Cascade(recipe.cascade).eval()
    cascade.semantic.decoder._1x1_BR.weight.data *= 100
    torch.nn.init.normal_(cascade.error.head.weight)
    torch.nn.init.normal_(cascade.detail.head.weight)
    return cascade


@pytest.fixture(scope="module")
def frames(tmp_path_factory, write_folder):
    """Three frames that fill their input, 49x65, and their grid, 13x17."""
    root = tmp_path_factory.mktemp("frames")
    write_folder(root, 3, (49, 65))
    return FolderData(root, 11)


def bare(items, title, total):
    return items


@torch.no_grad()
def test_branches_are_those_of_the_cascade(doubtful, recipe, frames):
    frame, _ = frames[1]
    front = doubtful.front(normalise(frame, recipe.input)[None])
    found = branches_of(doubtful, recipe, frame)
    np.testing.assert_allclose(found.logits, front.logits[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.error_logit, front.error_logit[0, 0], rtol=0, atol=1e-4)
    refined = doubtful.detail.refine(front.logits, front.low, front.coarse, front.gate)
    np.testing.assert_allclose(found.detail_logits, refined[0], rtol=0, atol=1e-4)
    geometry = found.geometry
    assert (geometry.grid_size, geometry.input_size, geometry.output_size) == ((13, 17), (49, 65), (49, 65))


@pytest.mark.parametrize("fusion", ["replace", "average"])
@pytest.mark.parametrize("selector", ["error", "entropy", "confidence", "everywhere"])
def test_flagged_is_what_the_method_selects_and_becomes_its_answer(doubtful, recipe, frames, selector, fusion):
    frame, _ = frames[0]
    plain = branches_of(doubtful, recipe, frame)
    p_sb = softmax(plain.logits, axis=0)
    doubts = {"entropy": entropy(p_sb, axis=0), "confidence": 1 - p_sb.max(axis=0)}
    limit = float(np.median(doubts.get(selector, 0)))  # so that every other pixel is flagged
    method = MethodConfig(selector=selector, fusion=fusion, limit=limit)
    recipe = replace(recipe, method=method, threshold=float(expit(np.median(plain.error_logit))))
    found = branches_of(doubtful, recipe, frame)
    logits, error_logit, detail = (
        torch.from_numpy(part)[None] for part in (plain.logits, plain.error_logit[None], plain.detail_logits)
    )
    wanted = flagged_by(method, recipe.threshold, logits, error_logit)[0].numpy()
    np.testing.assert_array_equal(found.flagged(recipe.threshold), wanted)
    assert wanted.mean() == pytest.approx(1 if selector == "everywhere" else 0.5, abs=0.05)
    np.testing.assert_array_equal(found.logits, plain.logits)
    np.testing.assert_allclose(found.detail_logits, answer(method, logits, detail)[0], rtol=0, atol=1e-5)


def test_scores_are_counted_over_every_frame(doubtful, recipe, frames):
    bars = []

    def progress(items, title, total):
        bars.append((title, total))
        return items

    result = evaluate(doubtful, recipe, frames, progress, "score on three", thresholds=(0.2, 0.9))
    assert bars == [("score on three", 3)]
    scores = result.to_dict(CAMVID)
    assert scores["frames"] == 3
    errors = [branches_of(doubtful, recipe, frames[index][0]).error_logit for index in range(3)]
    shares = [flag(torch.from_numpy(error), recipe.threshold).float().mean().item() for error in errors]
    assert scores["flagged"] == pytest.approx(np.mean(shares), abs=1e-6)
    assert {row["t"] for row in scores["thresholds"]} >= {0.2, 0.9}
    # Work is that of the layers: multiply-adds of a row, at flagged pixels dilated by two, by one, and as they are.
    stage = doubtful.detail.stage3
    convolutions = [stage.low[0], stage.fuse[0][0], stage.fuse[2][0]]
    costs = np.array([layer.weight.numel() for layer in convolutions])
    costs[2] += doubtful.detail.head.weight.numel()
    for row in scores["thresholds"]:
        work = []
        for error in errors:
            flagged = flag(torch.from_numpy(error), row["t"]).numpy()
            rows = [
                binary_dilation(flagged, np.ones((3, 3)), iterations=n).sum() if n else flagged.sum() for n in (2, 1, 0)
            ]
            work.append((costs * rows).sum() / (costs.sum() * flagged.size))
        assert row["work"] == pytest.approx(np.mean(work))


@pytest.mark.parametrize("selector", ["error", "everywhere"])
def test_kept_taps_score_as_their_frames_do(doubtful, recipe, frames, tmp_path, selector):
    recipe = replace(recipe, method=MethodConfig(selector=selector))
    store = TapStore(tmp_path, frames, lambda _: doubtful, recipe.input)
    kept, computed = (evaluate(doubtful, recipe, of, bare, "").to_dict(CAMVID) for of in (store, frames))
    # In half precision a pixel in a hundred may fall to the other side.
    for part in ("semantic", "fused"):
        assert kept[part]["accuracy"] == pytest.approx(computed[part]["accuracy"], abs=0.01)
    assert kept["flagged"] == pytest.approx(computed["flagged"], abs=0.02)
    assert computed["fused"]["accuracy"] != computed["semantic"]["accuracy"]
