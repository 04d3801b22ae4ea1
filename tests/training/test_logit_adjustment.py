"""Logit adjustment: rarity as counted, and logits that move by it, in either decoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.networks import Cascade
from errseg_rt.training.logit_adjustment import adjust_logits, class_rarity


def labelled(*maps):
    """Frames of which only the labels matter."""
    return [(np.zeros((*labels.shape, 3), np.uint8), labels.astype(np.uint8)) for labels in map(np.asarray, maps)]


def test_rarity_is_minus_the_logarithm_of_a_share():
    rng = np.random.default_rng(0)
    maps = [rng.choice([0, 1, 2, 4, IGNORE], (5, 7), p=[0.6, 0.2, 0.1, 0.05, 0.05]) for _ in range(3)]
    rarity = class_rarity(labelled(*maps), 5).numpy()
    counts = np.array([sum((labels == index).sum() for labels in maps) for index in range(5)])
    assert counts[3] == 0 < counts[4]
    present = np.array([0, 1, 2, 4])
    np.testing.assert_allclose(np.exp(-rarity[present]), counts[present] / counts.sum(), rtol=1e-5)
    assert rarity[3] == rarity[present].max()  # as rare as the rarest that occurs


def test_a_pixel_of_a_set_counts_for_each_of_its_classes():
    sets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    rarity = class_rarity(labelled([[0, 1, 1, 3], [3, 3, 2, IGNORE]]), 3, sets).numpy()
    np.testing.assert_allclose(np.exp(-rarity), [4 / 7, 5 / 7, 1 / 7], rtol=1e-6)


@pytest.mark.parametrize("frames", [[], labelled(np.full((2, 3), IGNORE))], ids=["no_frames", "void_everywhere"])
def test_rarity_of_nothing_is_zero(frames):
    assert class_rarity(frames, 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("decoder", ["gau", "dupsampling"])
@torch.no_grad()
def test_logits_move_by_the_rarity_of_their_class(recipe, decoder):
    torch.manual_seed(0)
    cascade = Cascade(replace(recipe.cascade, decoder=decoder)).eval()
    torch.nn.init.normal_(cascade.detail.head.weight)
    taps = cascade.taps(torch.randn(1, 3, 65, 97))
    before = cascade.detail(taps)
    rarity = torch.linspace(0.5, 7, before.shape[1])
    adjust_logits(cascade.detail, rarity, 0.25)
    torch.testing.assert_close(cascade.detail(taps), before + 0.25 * rarity[:, None, None], rtol=0, atol=1e-5)
