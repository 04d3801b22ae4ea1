"""Recipes: what is read, and what is refused in words."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import asdict, fields, replace
from importlib.resources import files

import pytest
import torch

from errseg_rt import training
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.errors import DataError
from errseg_rt.networks import Cascade
from errseg_rt.training.recipe import (
    STAGES,
    BootstrapConfig,
    CrossFitConfig,
    MethodConfig,
    Recipe,
    StageConfig,
    load_recipe,
    parse_recipe,
    recipe_names,
    tomllib,
)

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
    assert recipe.error.iterations
    assert recipe.detail.iterations
    with torch.device("meta"):
        assert Cascade(recipe.cascade).semantic.align_corners is recipe.input.plus_one
    sides = {(side - recipe.input.plus_one) % recipe.input.multiple for side in recipe.augment.crop}
    assert sides == {0}


PACKAGE = {name: tomllib.loads((files(training) / "recipes" / f"{name}.toml").read_text()) for name in recipe_names()}


def test_the_package_has_recipes_of_their_own_and_changed_ones():
    assert {"camvid", "cityscapes-deeplabv3plus", "cityscapes-pspnet", "ade20k-deeplabv3plus"} <= set(PACKAGE)
    assert "base" not in PACKAGE["camvid"]
    assert PACKAGE["camvid-entropy"]["base"] == "camvid"


@pytest.mark.parametrize("name", [name for name, table in PACKAGE.items() if "base" in table])
def test_a_recipe_with_a_base_changes_what_it_names_alone(name):
    table = dict(PACKAGE[name])
    base, recipe = (json.loads(json.dumps(asdict(load_recipe(of)))) for of in (table.pop("base"), name))
    assert recipe["name"] == name
    for name, value in table.items():
        if isinstance(value, dict):
            assert recipe[name].items() >= value.items()
            recipe[name] = base[name] and {**recipe[name], **{key: base[name][key] for key in value}}
        else:
            assert recipe[name] == value
            recipe[name] = base[name]
    if "classes" in table.get("data", {}):
        recipe["cascade"]["classes"] = base["cascade"]["classes"]
    assert {**recipe, "name": base["name"]} == base


def test_toml_becomes_frozen_values(toml):
    recipe = load_recipe(str(toml))
    assert (recipe.name, recipe.seed, recipe.threshold) == ("mine", 5, 0.6)
    assert (recipe.cascade.classes, recipe.cascade.residual) == (11, False)
    assert recipe.data.void == (11, 12)
    assert recipe.data.merge == ((1, 2), *((old,) for old in range(3, 13)))
    assert recipe.augment.crop == (65, 97)
    assert recipe.stage("semantic").checkpoint_every == 2
    assert [recipe.stage(stage).rate for stage in ("semantic", "error", "detail")] == [1e-3, 1e-2, 0.5]
    assert recipe.provenance == {"data": "none"}
    # What is left out has its default.
    assert (recipe.data.rendered, recipe.input.scale, recipe.augment.rotation) == (0.0, 1.0, 10.0)
    assert hash(recipe.augment) == hash(copy.deepcopy(recipe.augment))


def test_what_is_left_out_is_the_plain_method(toml):
    recipe = load_recipe(str(toml))
    assert (recipe.error_frozen, recipe.detail_frozen) == (StageConfig(0), StageConfig(0))
    assert (recipe.views, recipe.cross_fit) == (None, CrossFitConfig(folds=0))
    assert recipe.method == MethodConfig(selector="error", learn="flagged", fusion="replace")
    assert recipe.bootstrap == BootstrapConfig(probability=0)


def test_changes_take_the_place_of_the_recipes_own(toml):
    recipe = load_recipe(str(toml))
    assert load_recipe(str(toml), ["seed=0"]) == replace(recipe, seed=0)
    assert load_recipe(str(toml), []) == recipe
    # Of a section, what is not named stays; of two changes the later one counts; a section may be new.
    changes = ["detail.iterations=100", "detail.rate=0.1", "detail.rate=0.2", "views={scales=[1, 2]}", "cascade={}"]
    changed = load_recipe(str(toml), changes)
    assert changed.detail == replace(recipe.detail, iterations=100, rate=0.2)
    assert changed.views is not None
    assert changed.views.scales == (1, 2)
    assert replace(changed, detail=recipe.detail, views=None) == recipe


def test_the_input_may_be_limited(toml):
    assert load_recipe(str(toml)).input.work_pixels == 0
    assert load_recipe(str(toml), ["input.work_pixels=1_000_000"]).input.work_pixels == 1_000_000
    with pytest.raises(DataError, match=r"limits may be 0 for none: .*work_pixels = -1"):
        load_recipe(str(toml), ["input.work_pixels=-1"])


def test_the_embedded_bundle_has_the_input_of_its_recipe():
    assert Bundle.open("camvid").manifest.input == load_recipe("camvid").input


def test_a_base_may_have_a_base_and_be_a_file(toml, tmp_path):
    (tmp_path / "second.toml").write_text(f'base = "{toml}"\nseed = 8\n[detail]\nrate = 0.25\n')
    # The path of a base starts from the recipe's folder.
    (tmp_path / "third.toml").write_text('base = "second.toml"\nthreshold = 0.1\n')
    first, third = load_recipe(str(toml)), load_recipe(str(tmp_path / "third.toml"), ["detail.batch=7"])
    detail = replace(first.detail, rate=0.25, batch=7)
    assert third == replace(first, name="third", seed=8, threshold=0.1, detail=detail)


def test_a_bundle_may_have_a_threshold_of_its_own(toml):
    recipe = load_recipe(str(toml))
    assert recipe.deployed == recipe
    other = load_recipe(str(toml), ["bundle_threshold=0.8"])
    assert (other.threshold, other.deployed.threshold) == (0.6, 0.8)


CHANGES_REFUSED = {
    "no_toml": ("seed", "Expected '='"),
    "unknown": ("sede=6", "Recipe has no field sede"),
    "unknown_in_a_section": ("detail.iteration=6", "StageConfig has no field iteration; it has batch, "),
    "value_for_a_section": ("detail=6", "'int' object"),
    "section_for_a_value": ("seed.x=6", "'int' object"),
    "impossible": ("detail.batch=0", "must be positive"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES_REFUSED.values(), ids=CHANGES_REFUSED.keys())
def test_faults_of_changes_are_named(toml, change, message):
    with pytest.raises(DataError, match=message):
        load_recipe(str(toml), [change])


@pytest.mark.parametrize(
    ("base", "message"),
    [("kitti", "no recipe is called 'kitti'"), ("absent.toml", "absent.toml: no such file")],
)
def test_missing_base(toml, base, message):
    toml.write_text(f'base = "{base}"\n')
    with pytest.raises(DataError, match=message):
        load_recipe(str(toml))


def test_a_recipe_cannot_be_its_own_base(toml):
    toml.write_text(f'base = "{toml}"\n')
    with pytest.raises(DataError, match=r"a recipe cannot be its own base: .*mine\.toml <- .*mine\.toml"):
        load_recipe(str(toml))


def test_every_stage_is_a_field():
    assert {*STAGES} <= {field.name for field in fields(Recipe)}
    recipe = load_recipe("camvid")
    assert all(isinstance(recipe.stage(name), StageConfig) for name in STAGES)
    assert recipe.stage("detail_frozen") is recipe.detail_frozen


@pytest.mark.parametrize("name", [*recipe_names(), "tiny"])
def test_recipe_survives_the_notes_of_a_training(name, recipe):
    before = recipe if name == "tiny" else load_recipe(name)
    notes = json.loads(json.dumps(asdict(before)))
    assert parse_recipe(notes.pop("name"), notes) == before


def test_unknown_name():
    with pytest.raises(
        DataError, match=r"no recipe is called 'kitti': choose from .*camvid, .*, or give a \.toml file"
    ):
        load_recipe("kitti")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"absent\.toml: no such file; recipes of the package: .*camvid, "):
        load_recipe(str(tmp_path / "absent.toml"))


def test_file_that_is_no_toml(toml):
    toml.write_text("seed = = 1")
    with pytest.raises(DataError, match=r"recipe .*mine.toml: "):
        load_recipe(str(toml))


REFUSED = {
    "no_seed": ("seed = 5", "", "seed"),
    "no_threshold": ("threshold = 0.6", "", "threshold"),
    "no_crop": ("crop = [65, 97]", "", "crop"),
    "no_stage": ("[error]\niterations = 100\nbatch = 1\nrate = 1e-2", "", "missing .*'error'"),
    "unknown_field": ("seed = 5", "seed = 5\nsede = 6", "Recipe has no field sede; it has augment, .*cascade, "),
    "unknown_section": ("[augment]", "[optimizer]\nmomentum = 0.9\n[augment]", "Recipe has no field optimizer"),
    "unknown_stage_field": ("batch = 2", "batches = 2", "StageConfig has no field batches; it has batch, "),
    "unknown_augmentation": ("[augment]", "[augment]\nblur = 1", "AugmentConfig has no field blur"),
    "class_set": ('"camvid"', '"ade"', "no class set is called 'ade': choose from"),
    "network": ('"squeezenas"', '"vgg"', "no semantic network is called 'vgg'"),
    "width": ("detail_width = 6", "detail_width = 0", "widths are too small"),
    "iterations": ("iterations = 4", "iterations = -4", "iterations not negative"),
    "batch": ("batch = 2", "batch = 0", "must be positive"),
    "rate": ("rate = 0.5", "rate = -0.5", "must be positive"),
    "checkpoints": ("checkpoint_every = 2", "checkpoint_every = 3", "does not divide self.iterations = 4"),
    "text_for_number": ("iterations = 4", 'iterations = "four"', "'str'"),
    "t": ("threshold = 0.6", "threshold = 1.5", "threshold must lie between 0 and 1, got 1.5"),
    "bundle_t": (
        "threshold = 0.6",
        "threshold = 0.6\nbundle_threshold = 1.0",
        "bundle_threshold must lie between 0 and 1, got 1.0",
    ),
    "bundle_t_of_zero": (
        "threshold = 0.6",
        "threshold = 0.6\nbundle_threshold = 0.0",
        "bundle_threshold must lie between 0 and 1, got 0.0",
    ),
    "negative_seed": ("seed = 5", "seed = -1", "seed must not be negative, got -1"),
    "one_sided_crop": ("crop = [65, 97]", "crop = [65]", "crop is a height and a width"),
    "no_scales": ("crop = [65, 97]", "crop = [65, 97]\nscales = []", "scales are positive"),
    "rendered": ('classes = "camvid"', 'classes = "camvid"\nrendered = 3', "rendered is a share in 0..1, got 3"),
    "merge": ("merge = [[1, 2], ", "merge = [", "merge has 10 lists for 11 classes"),
    "empty_merge": ("merge = [[1, 2], ", "merge = [[], ", "merge has an empty list"),
    "classes": ("detail_width = 6", "detail_width = 6\nclasses = 12", "camvid has 11 classes"),
    "decoder": ("residual = false", 'decoder = "unet"', "no decoder is called 'unet': choose from"),
    "view_scales": ("[augment]", "[views]\nscales = [0.0]\n[augment]", "scales are positive, rendered is a count"),
    "rendered_views": ("[augment]", "[views]\nrendered = -1\n[augment]", "scales are positive, rendered is a count"),
    "one_fold": ("[augment]", "[views]\n[cross_fit]\nfolds = 1\n[augment]", "folds are 0 or at least 2"),
    "no_block": ("[augment]", "[views]\n[cross_fit]\nfolds = 2\nblocks = 0\n[augment]", "blocks at least 1"),
    "negative_gap": ("[augment]", "[views]\n[cross_fit]\nfolds = 2\ngap = -1\n[augment]", "gap not negative"),
    "idle_folds": ("[augment]", "[views]\n[cross_fit]\nfolds = 2\n[augment]", "the 2 folds need iterations"),
    "folds_without_views": (
        "[augment]",
        "[cross_fit]\nfolds = 2\niterations = 4\n[augment]",
        "cross_fit needs views: only of whole frames are the taps of a fold kept",
    ),
    "checkpoints_of_folds": (
        "[augment]",
        "[views]\n[cross_fit]\nfolds = 2\niterations = 5\n[augment]",
        "self.semantic.checkpoint_every = 2 does not divide self.cross_fit.iterations = 5",
    ),
    "selector": ("[augment]", '[method]\nselector = "margin"\n[augment]', "selector is one of error, .*got 'margin'"),
    "learn": ("[augment]", '[method]\nlearn = "all"\n[augment]', "learn is one of flagged, .*got 'all'"),
    "fusion": ("[augment]", '[method]\nfusion = "sum"\n[augment]', "fusion is one of replace, .*got 'sum'"),
    "hardest": ("[augment]", "[method]\nhardest = 0.0\n[augment]", "self.hardest = 0.0"),
    "adjustment": ("[augment]", "[method]\nadjustment = 1.5\n[augment]", "self.adjustment = 1.5"),
    "limit": ("[augment]", "[method]\nlimit = -0.1\n[augment]", "self.limit = -0.1"),
    "error_weights": ("[augment]", "[error_loss]\nhard = 0.0\n[augment]", "weights are positive, .*hard=0.0"),
    "rho": ("[augment]", "[error_loss]\nrho = 1.0\n[augment]", "rho lies between 0 and 1"),
    "probability": ("[augment]", "[bootstrap]\nprobability = 1.5\n[augment]", "probability and keep lie in 0..1"),
    "keep": ("[augment]", "[bootstrap]\nkeep = 0.0\n[augment]", "probability and keep lie in 0..1"),
    "scale": ("[augment]", "[input]\nscale = 0.0\n[augment]", "scale must be a positive number"),
}


@pytest.mark.parametrize(("found", "instead", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_faults_are_named(toml, found, instead, message):
    assert found in TOML
    toml.write_text(TOML.replace(found, instead, 1))
    with pytest.raises(DataError, match=message) as caught:
        load_recipe(str(toml))
    assert str(caught.value).startswith(f"recipe {toml}".replace(os.sep, "/"))
