"""Batches against norms: what torch would say in the middle of a stage is said before the first, of every network."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from errseg_rt.bundle.contract import GRID_STRIDE
from errseg_rt.errors import DataError
from errseg_rt.networks import SEMANTIC_NETWORKS, Cascade
from errseg_rt.training import batches
from errseg_rt.training.batches import check_batches, check_shares
from errseg_rt.training.recipe import STAGES
from errseg_rt.training.recipe_data import ViewsConfig
from errseg_rt.training.recipe_learning import StageConfig


def changed(recipe, network, batch, crop, **stages):
    stride = getattr(SEMANTIC_NETWORKS[network], "grid_stride", GRID_STRIDE)
    cascade = replace(recipe.cascade, semantic=network, grid_stride=stride)
    augment = replace(recipe.augment, crop=crop)
    return replace(recipe, cascade=cascade, augment=augment, semantic=replace(recipe.semantic, batch=batch), **stages)


def torch_says(config, batch, crop):
    """What the network itself says against a batch of real numbers; None: nothing."""
    network = Cascade(config).semantic.train()
    try:
        network(torch.zeros(batch, 3, *crop))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("crop", [(33, 49), (16, 16)], ids=str)
@pytest.mark.parametrize("network", ["squeezenas", "pspnet-resnet50"])
def test_it_says_what_a_real_batch_would_meet(recipe, network, crop):
    for batch in (1, 2):
        asked = changed(recipe, network, batch, crop)
        fault = torch_says(asked.cascade, batch, crop)
        if fault is None:
            check_batches(asked, [], 1)
        else:
            with pytest.raises(DataError, match=re.escape(f"got {batch} / 1 ({fault})")):
                check_batches(asked, [], 1)


@pytest.mark.parametrize("network", SEMANTIC_NETWORKS)
def test_networks_that_pool_the_whole_map_refuse_a_batch_of_one(recipe, network):
    idle = dict.fromkeys(STAGES[1:], StageConfig(0))
    check_batches(changed(recipe, network, 2, (33, 49), **idle), [], 1)
    alone = changed(recipe, network, 3, (385, 513), **idle)
    without = ("squeezenas", "efficientvit-b0", "light-unet", "dpc-xception71", "dpc-xception71-os8")
    if network in without or network.startswith("fcrn"):  # whose pooling, if any, has no norm behind
        check_batches(alone, [], 3)
        return
    where = f"{network} with inputs of 385x513"
    with pytest.raises(DataError, match=rf"^semantic\.batch / devices must be 2 or more for {where}, got 3 / 3 \(Exp"):
        check_batches(alone, [], 3)


def test_a_branch_is_asked_too(recipe):
    # A group of one channel at one pixel: the semantic branch is frozen then, in eval mode, and takes any batch.
    stages = {**dict.fromkeys(STAGES, StageConfig(0)), "detail": replace(recipe.detail, batch=1)}
    tiny = replace(recipe.input, multiple=4, plus_one=False)
    narrow = replace(recipe, cascade=replace(recipe.cascade, detail_width=1), input=tiny, views=ViewsConfig(), **stages)
    check_batches(narrow, [(48, 64)], 1)
    with pytest.raises(
        DataError, match=r"^detail\.batch / devices must be 2 or more for squeezenas with inputs of 4x4, "
    ):
        check_batches(narrow, [(48, 64), (3, 4)], 1)


def test_the_smallest_view_of_the_data_counts(recipe, monkeypatch):
    small = replace(recipe, views=ViewsConfig(scales=(0.5, 1.0)), detail=replace(recipe.detail, batch=1))
    asked = []
    monkeypatch.setattr(batches, "_fault", lambda recipe, *of: asked.append(of))
    check_batches(small, [(360, 480), (20, 600), (64, 40), (700, 64)], 1)
    least = (33, 33)  # of 64x40 at one half, to sides of 16 n + 1
    wanted = [("semantic", 2, (65, 65)), *((stage, recipe.stage(stage).batch, least) for stage in STAGES[1:-1])]
    assert asked == [(stage, 1 if stage == "detail" else batch, size, None) for stage, batch, size in wanted]


def test_shares_are_even(recipe):
    check_shares(recipe, 2)
    with pytest.raises(DataError, match="the batches of error, detail cannot be shared evenly by 2 devices"):
        check_shares(replace(recipe, detail=replace(recipe.detail, batch=3), error=replace(recipe.error, batch=5)), 2)
    check_shares(replace(recipe, detail=StageConfig(0, batch=3)), 2)


def test_asking_draws_no_random_numbers(recipe):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_batches(recipe, [], 1)
    assert torch.equal(torch.get_rng_state(), before)
