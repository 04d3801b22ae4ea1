"""A whole training of a cascade with instances: what it writes, and going on from what is there."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from errseg_rt.errors import DataError
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.loop import train
from errseg_rt.training.recipe_files import load_recipe, parse_recipe
from tests.training.conftest import assert_same_training
from tests.training.discs import Discs, write
from tests.training.test_localization import RECIPE

pytestmark = pytest.mark.usefixtures("small_scenes", "process_settings", "on_cpu")
SHORT = {"iterations": 2, "batch": 2, "rate": 1e-3, "checkpoint_every": 1}
STAGES = ("semantic", "error", "detail", "localization")


def recipe_of(**changes):
    table = copy.deepcopy(RECIPE)
    table["cascade"] = {**table["cascade"], "semantic": "small", "grid_stride": 4}
    table["augment"] = {"crop": [32, 32], "scales": [1.0]}
    table.update(dict.fromkeys(STAGES, SHORT))
    return parse_recipe("discs", {**table, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("discs")
    write(root / "train", Discs(20, size=(40, 48)))
    write(root / "val", Discs(2, size=(40, 48)))
    return root


@pytest.mark.parametrize("joint", [0.0, 1.0], ids=["frozen", "joint"])
def test_a_training_with_instances_goes_on(tmp_path, data, small_network, joint):
    recipe = recipe_of(box_loss={"joint": joint, "keep": 8})
    true = [Discs(2, size=(40, 48)).instances(index, None) for index in range(2)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    wanted = train(recipe, data, whole)
    found = train(recipe, data, parts)
    semantic = load_cascade(parts / "semantic.safetensors")[0]
    alone = load_cascade(found)[0]
    moved = [
        (value != alone.localization.state_dict()[name]).any()
        for name, value in semantic.localization.state_dict().items()
    ]
    assert any(moved)  # the stage behind goes on with the head
    scores = load_cascade(found)[1]["metrics"]["val"]["instances"]
    assert (scores["frames"], scores["truths"]) == (2, sum(len(np.unique(m)) - 1 for m in true))
    assert scores["classes"]["disc"]["found"] == scores["found"]
    for name in ("cascade", "localization", "detail"):
        (parts / f"{name}.safetensors").unlink()
    assert_same_training(train(recipe, data, parts), wanted)


def test_a_head_that_learned_with_the_semantic_branch_is_kept_without_a_stage_of_its_own(tmp_path, data, small_network):
    recipe = recipe_of(localization={**SHORT, "iterations": 0})
    result = train(recipe, data, tmp_path)
    result.unlink()  # so that the branches are taken from what their stages have written
    train(recipe, data, tmp_path)
    first, last = (load_cascade(tmp_path / f"{name}.safetensors")[0] for name in ("semantic", "cascade"))
    for name, value in first.localization.state_dict().items():
        assert torch.equal(value, last.localization.state_dict()[name]), name


def test_a_semantic_branch_that_learned_boxes_is_shared_with_the_same_alone(tmp_path, data, small_network):
    recipe = recipe_of()
    train(recipe, data, tmp_path / "first")
    other = recipe_of(seed=4, localization={**SHORT, "rate": 2e-3})
    result = train(other, data, tmp_path / "second", shared=tmp_path / "first")
    first, second = load_cascade(tmp_path / "first" / "semantic.safetensors")[0], load_cascade(result)[0]
    for name, value in first.semantic.state_dict().items():
        assert torch.equal(value, second.semantic.state_dict()[name]), name
    weighed = recipe_of(box_loss={"joint": 1.0, "keep": 64, "size_power": 0.0})
    with pytest.raises(DataError, match=r"its semantic branch cannot be shared \(box_loss\.size_power"):
        train(weighed, data, tmp_path / "third", shared=tmp_path / "first")


def test_instances_that_change_are_other_inputs(tmp_path, small_network):
    root, out = tmp_path / "data", tmp_path / "out"
    write(root / "train", Discs(20, size=(40, 48)))
    recipe = recipe_of()
    train(recipe, root, out)
    (out / "cascade.safetensors").unlink()
    maps = root / "train" / "instances"
    (maps / "disc0.png").write_bytes((maps / "disc1.png").read_bytes())
    with pytest.raises(DataError, match="disc0 with other labels"):
        train(recipe, root, out)


def test_the_recipe_of_nuclei_is_as_its_bundle_wants_it():
    recipe = load_recipe("nuclei")
    assert recipe.classes.names == ("background", "nucleus")
    assert recipe.cascade.things == (1,)
    assert recipe.input.content_size((256, 256)) == (512, 512)
    assert recipe.input.content_size((520, 696)) == (520, 696)
    bootstrapped, plain = load_recipe("nuclei-bootstrapped"), load_recipe("nuclei-plain")
    assert (bootstrapped.box_loss.size_power, bootstrapped.box_loss.easy) == (0, recipe.box_loss.easy)
    assert (plain.box_loss.size_power, plain.box_loss.easy, plain.bootstrap.probability) == (0, 1, 0)
