"""Recipes: what is read, and what is refused in words."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import asdict, replace

import pytest

from errseg_rt.errors import DataError
from errseg_rt.networks import Cascade
from errseg_rt.training.recipe import STAGES, load_recipe, parse_recipe, recipe_names

TOML = """
seed = 5
threshold = 0.6

[cascade]
semantic = "squeezenas"
error_width = 4
detail_width = 6
residual = false

[data]
classes = "camvid"
void = [11, 12]
merge = [[1, 2], [3], [4], [5], [6], [7], [8], [9], [10], [11], [12]]

[augment]
crop = [65, 97]

[semantic]
iterations = 4
batch = 2
rate = 1e-3
checkpoint_every = 2

[error]
iterations = 100
batch = 1
rate = 1e-2

[detail]
iterations = 50
batch = 1
rate = 0.5
weight_decay = 0.1

[provenance]
data = "none"
"""


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_of_the_package_load_and_fit_their_networks(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.cascade.classes == len(recipe.classes)
    assert recipe.provenance["data"]
    assert not recipe.data.merge or len(recipe.data.merge) == len(recipe.classes)
    assert Cascade(recipe.cascade).config == recipe.cascade
    sides = {(side - recipe.input.plus_one) % recipe.input.multiple for side in recipe.augment.crop}
    assert sides == {0}


def test_the_package_has_a_recipe():
    assert "camvid" in recipe_names()


def test_toml_becomes_frozen_values(toml):
    recipe = load_recipe(str(toml))
    assert (recipe.name, recipe.seed, recipe.threshold) == ("mine", 5, 0.6)
    assert (recipe.cascade.classes, recipe.cascade.residual) == (11, False)
    assert recipe.data.void == (11, 12)
    assert recipe.data.merge == ((1, 2), *((old,) for old in range(3, 13)))
    assert recipe.augment.crop == (65, 97)
    assert recipe.stage("semantic").checkpoint_every == 2
    assert [recipe.stage(stage).rate for stage in STAGES] == [1e-3, 1e-2, 0.5]
    assert recipe.provenance == {"data": "none"}
    # What is left out has its default.
    assert (recipe.data.rendered, recipe.input.scale, recipe.augment.rotation) == (0.0, 1.0, 10.0)
    assert hash(recipe.augment) == hash(copy.deepcopy(recipe.augment))


def test_seed_takes_the_place_of_the_recipes_own(toml):
    recipe = load_recipe(str(toml))
    assert load_recipe(str(toml), seed=0) == replace(recipe, seed=0)
    assert load_recipe(str(toml), seed=None) == recipe


@pytest.mark.parametrize("name", ["camvid", "tiny"])
def test_recipe_survives_the_notes_of_a_training(name, recipe):
    before = load_recipe("camvid") if name == "camvid" else recipe
    notes = json.loads(json.dumps(asdict(before)))
    assert parse_recipe(notes.pop("name"), notes) == before


def test_unknown_name():
    with pytest.raises(DataError, match=r"no recipe is called 'kitti': choose from camvid, or give a \.toml file"):
        load_recipe("kitti")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"absent\.toml: no such file; recipes of the package: camvid"):
        load_recipe(str(tmp_path / "absent.toml"))


def test_file_that_is_no_toml(toml):
    toml.write_text("seed = = 1")
    with pytest.raises(DataError, match=r"recipe .*mine.toml: "):
        load_recipe(str(toml))


REFUSED = {
    "no_seed": ("seed = 5", "", "seed"),
    "no_threshold": ("threshold = 0.6", "", "threshold"),
    "no_crop": ("crop = [65, 97]", "", "crop"),
    "no_stage": ("[error]\niterations = 100\nbatch = 1\nrate = 1e-2", "", "iterations"),
    "unknown_field": ("seed = 5", "seed = 5\nsede = 6", "Recipe has no field sede; it has augment, cascade"),
    "unknown_section": ("[augment]", "[optimizer]\nmomentum = 0.9\n[augment]", "Recipe has no field optimizer"),
    "unknown_stage_field": ("batch = 2", "batches = 2", "StageConfig has no field batches; it has batch, "),
    "unknown_augmentation": ("[augment]", "[augment]\nblur = 1", "AugmentConfig has no field blur"),
    "class_set": ('"camvid"', '"ade"', "no class set is called 'ade': choose from"),
    "network": ('"squeezenas"', '"vgg"', "no semantic network is called 'vgg'"),
    "width": ("detail_width = 6", "detail_width = 0", "widths are too small"),
    "iterations": ("iterations = 4", "iterations = 0", "must be positive"),
    "batch": ("batch = 2", "batch = 0", "must be positive"),
    "rate": ("rate = 0.5", "rate = -0.5", "must be positive"),
    "checkpoints": ("checkpoint_every = 2", "checkpoint_every = 3", "does not divide self.iterations = 4"),
    "text_for_number": ("iterations = 4", 'iterations = "four"', "'str'"),
    "t": ("threshold = 0.6", "threshold = 1.5", "threshold must lie between 0 and 1, got 1.5"),
    "negative_seed": ("seed = 5", "seed = -1", "seed must not be negative, got -1"),
    "one_sided_crop": ("crop = [65, 97]", "crop = [65]", "crop is a height and a width"),
    "no_scales": ("crop = [65, 97]", "crop = [65, 97]\nscales = []", "scales are positive"),
    "rendered": ('classes = "camvid"', 'classes = "camvid"\nrendered = 3', "rendered is a share in 0..1, got 3"),
    "merge": ("merge = [[1, 2], ", "merge = [", "merge has 10 lists for 11 classes"),
    "empty_merge": ("merge = [[1, 2], ", "merge = [[], ", "merge has an empty list"),
    "classes": ("detail_width = 6", "detail_width = 6\nclasses = 12", "camvid has 11 classes"),
    "scale": ("[augment]", "[input]\nscale = 0.0\n[augment]", "scale must be a positive number"),
}


@pytest.mark.parametrize(("found", "instead", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_faults_are_named(toml, found, instead, message):
    assert found in TOML
    toml.write_text(TOML.replace(found, instead, 1))
    with pytest.raises(DataError, match=message) as caught:
        load_recipe(str(toml))
    assert str(caught.value).startswith(f"recipe {toml}".replace(os.sep, "/"))
