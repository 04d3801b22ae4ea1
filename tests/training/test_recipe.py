"""Recipes: what is read, and what is refused in words."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from importlib.resources import files
from typing import get_args, get_type_hints

import pytest
import torch

from errseg_rt import training
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.classes import CLASS_SETS, ClassSet
from errseg_rt.errors import DataError
from errseg_rt.networks import Cascade
from errseg_rt.system.toml_text import parse_toml
from errseg_rt.training.recipe import STAGES, Recipe
from errseg_rt.training.recipe_files import load_recipe, parse_recipe, recipe_names
from errseg_rt.training.recipe_learning import BootstrapConfig, CrossFitConfig, MethodConfig, StageConfig

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


# The others take classes from the bundle of a network that is given.
COMPLETE = [name for name in recipe_names() if name != "wrapped"]


@pytest.mark.parametrize("name", COMPLETE)
def test_recipes_of_the_package_load_and_fit_their_networks(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.cascade.classes == len(recipe.classes)
    assert recipe.provenance["data"]
    assert len(recipe.initial_rows) in (0, len(recipe.classes))
    assert recipe.error.iterations
    assert recipe.detail.iterations
    if name != "cityscapes":  # whose network is fed as its authors have it
        with torch.device("meta"):
            assert Cascade(recipe.cascade).semantic.align_corners is recipe.input.plus_one
    sides = {(side - recipe.input.plus_one) % recipe.input.multiple for side in recipe.augment.crop}
    assert sides == {0}


PACKAGE = {name: parse_toml((files(training) / "recipes" / f"{name}.toml").read_text()) for name in recipe_names()}


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


def test_what_is_given_goes_before_changes_and_after_the_recipe(toml):
    given = {"data": {"first_id": 1, "void": None}}
    data = load_recipe(str(toml), (), given).data
    assert (data.first_id, data.void, data.classes) == (1, None, "camvid")
    data = load_recipe(str(toml), ["data.void=[0, 200]"], given).data
    assert (data.first_id, data.void) == (1, (0, 200))


def test_the_input_may_be_limited(toml):
    assert load_recipe(str(toml)).input.work_pixels == 0
    assert load_recipe(str(toml), ["input.work_pixels=1_000_000"]).input.work_pixels == 1_000_000
    with pytest.raises(DataError, match=r"input\.work_pixels: wanted 0 or more, got -1"):
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
    "no_value": ("seed", r"^--set seed: not TOML \(.*\); wanted field=value, where a text stands in quotes"),
    "no_quotes": ("data.classes=camvid", r"^--set data\.classes=camvid: not TOML .*\"data\.classes='camvid'\""),
    "upper_case": ("augment.flip=False", r"^--set augment\.flip=False: not TOML .*true or false is so in lower case"),
    "nothing": ("", r"^--set '': wanted field=value, as detail\.iterations=100"),
    "unknown": ("sede=6", "sede: no such field; did you mean seed?"),
    "unknown_in_a_section": ("detail.iteration=6", r"detail\.iteration: no such field; did you mean iterations\?"),
    "unknown_section": ("detial.iterations=6", r"detial: no such field; did you mean detail\?"),
    "like_nothing": ("views={xyz=1}", r"views\.xyz: no such field; there are flip, rendered, scales"),
    "value_for_a_section": ("detail=6", "detail: wanted a section of fields, got 6"),
    "value_for_the_cascade": ("cascade=6", "cascade: wanted a section of fields, got 6"),
    "value_for_data": ("data='x'", "data: wanted a section of fields, got 'x'"),
    "section_for_a_value": ("seed.x=6", "seed: wanted a whole number, got {'x': 6}"),
    "impossible": ("detail.batch=0", r"detail\.batch: wanted 1 or more, got 0"),
    "base": ("base='camvid'", "base: no such field"),
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


@pytest.mark.parametrize("name", [*COMPLETE, "tiny"])
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


# What stands in the recipe, what takes its place, and the message, which begins with the field.
IN_AUGMENT = "[augment]\ncrop = [65, 97]"
REFUSED = {
    "no_seed": ("seed = 5", "", "seed: missing"),
    "no_threshold": ("threshold = 0.6", "", "threshold: missing"),
    "no_crop": ("crop = [65, 97]", "", "augment.crop: missing"),
    "no_stage": ("[error]\niterations = 100\nbatch = 1\nrate = 1e-2", "", "error: missing"),
    "no_iterations": ("iterations = 4", "", "semantic.iterations: missing"),
    "unknown_field": ("seed = 5", "seed = 5\nsede = 6", "sede: no such field; did you mean seed?"),
    "unknown_section": ("[augment]", "[optimizer]\nmomentum = 0.9\n[augment]", "optimizer: no such field; there are "),
    "unknown_stage_field": ("batch = 2", "batches = 2", "semantic.batches: no such field; did you mean batch?"),
    "unknown_augmentation": ("[augment]", "[augment]\nblur = 1", "augment.blur: no such field; there are crop, flip"),
    "class_set": ('"camvid"', '"ade"', "data.classes: "),
    "network": ('"squeezenas"', '"vgg"', "cascade.semantic: wanted one of deeplabv3plus-resnet"),
    "width": ("detail_width = 6", "detail_width = 0", "cascade.detail_width: wanted 1 or more, got 0"),
    "iterations": ("iterations = 4", "iterations = -4", "semantic.iterations: wanted 0 or more, got -4"),
    "batch": ("batch = 2", "batch = 0", "semantic.batch: wanted 1 or more, got 0"),
    "rate": ("rate = 0.5", "rate = -0.5", "detail.rate: wanted a number above 0, got -0.5"),
    "decay": ("weight_decay = 0.1", "weight_decay = -1", "detail.weight_decay: wanted 0 or more, got -1"),
    "checkpoints": (
        "checkpoint_every = 2",
        "checkpoint_every = 3",
        "semantic.checkpoint_every: wanted a divisor of iterations, 4, got 3",
    ),
    "t": ("threshold = 0.6", "threshold = 1.5", "threshold: wanted a number between 0 and 1, got 1.5"),
    "bundle_t": ("seed = 5", "seed = 5\nbundle_threshold = 1.0", "bundle_threshold: wanted a number between 0 and 1"),
    "bundle_t_of_zero": ("seed = 5", "seed = 5\nbundle_threshold = 0.0", "bundle_threshold: wanted a number between"),
    "negative_seed": ("seed = 5", "seed = -1", "seed: wanted 0 or more, below 2**32, got -1"),
    "vast_seed": ("seed = 5", "seed = 4294967296", "seed: wanted 0 or more, below 2**32, got 4294967296"),
    "small_crop": ("crop = [65, 97]", "crop = [65, 15]", "augment.crop: wanted a height and a width of at least 16"),
    "no_scales": (IN_AUGMENT, f"{IN_AUGMENT}\nscales = []", "augment.scales: wanted positive numbers, at least one"),
    "rotation": (IN_AUGMENT, f"{IN_AUGMENT}\nrotation = -1", "augment.rotation: wanted 0 or more degrees, got -1"),
    "rendered": (
        'classes = "camvid"',
        'classes = "camvid"\nrendered = 3',
        "data.rendered: wanted a share in 0..1, got 3",
    ),
    "void": ("void = [11, 12]", "void = [11, 256]", "data.void: wanted label ids in 0..255, got [11, 256]"),
    "first_id": ("void = [11, 12]", "first_id = 256", "data.first_id: wanted a label id in 0..255, got 256"),
    "map_and_void": (
        "void = [11, 12]",
        'void = [11, 12]\nlabel_map = "labelIds"',
        "data.label_map: wanted none beside void or first_id, as it says of each id what it means, got 'labelIds'",
    ),
    "map_and_first_id": (
        "void = [11, 12]",
        'first_id = 0\nlabel_map = "labelIds"',
        "data.label_map: wanted none beside",
    ),
    "classes": (
        "detail_width = 6",
        "detail_width = 6\nclasses = 12",
        "cascade.classes: wanted 11, those of camvid, got 12",
    ),
    "decoder": ("residual = false", 'decoder = "unet"', "cascade.decoder: wanted one of dupsampling, gau, got 'unet'"),
    "large_scales": (IN_AUGMENT, f"{IN_AUGMENT}\nscales = [1, 17]", "augment.scales: wanted numbers up to 16, got"),
    "large_crop": (
        "crop = [65, 97]",
        "crop = [65, 100000]",
        "augment.crop: wanted a height and a width of at least 16 ",
    ),
    "scales_of_scales": (
        IN_AUGMENT,
        f"{IN_AUGMENT}\nscales = [8]\n[input]\nscale = 4",
        "augment.scales: wanted numbers up to 4",
    ),
    "large_view_scales": ("[augment]", "[views]\nscales = [1e9]\n[augment]", "views.scales: wanted numbers up to 16, "),
    "view_scales": ("[augment]", "[views]\nscales = [0.0]\n[augment]", "views.scales: wanted positive numbers, at "),
    "rendered_views": (
        "[augment]",
        "[views]\nrendered = -1\n[augment]",
        "views.rendered: wanted 0 or more frames, got ",
    ),
    "one_fold": ("[augment]", "[views]\n[cross_fit]\nfolds = 1\n[augment]", "cross_fit.folds: wanted 0, or 2 or more"),
    "no_block": (
        "[augment]",
        "[views]\n[cross_fit]\nfolds = 2\nblocks = 0\n[augment]",
        "cross_fit.blocks: wanted 1 or more, got 0",
    ),
    "negative_gap": (
        "[augment]",
        "[views]\n[cross_fit]\nfolds = 2\ngap = -1\n[augment]",
        "cross_fit.gap: wanted 0 or more, got -1",
    ),
    "idle_folds": (
        "[augment]",
        "[views]\n[cross_fit]\nfolds = 2\n[augment]",
        "cross_fit.iterations: wanted 1 or more with 2 folds, got 0",
    ),
    "folds_without_views": (
        "[augment]",
        "[cross_fit]\nfolds = 2\niterations = 4\n[augment]",
        "cross_fit: wants views: only of whole frames are the taps of a fold kept",
    ),
    "checkpoints_of_folds": (
        "[augment]",
        "[views]\n[cross_fit]\nfolds = 2\niterations = 5\n[augment]",
        "cross_fit.iterations: wanted a multiple of semantic.checkpoint_every, 2, got 5",
    ),
    "selector": ("[augment]", '[method]\nselector = "margin"\n[augment]', "method.selector: wanted one of error, "),
    "learn": ("[augment]", '[method]\nlearn = "all"\n[augment]', "method.learn: wanted one of flagged, "),
    "fusion": (
        "[augment]",
        '[method]\nfusion = "sum"\n[augment]',
        "method.fusion: wanted one of replace, average, got",
    ),
    "hardest": ("[augment]", "[method]\nhardest = 0.0\n[augment]", "method.hardest: wanted a share above 0, up to 1"),
    "boundary": ("[augment]", "[method]\nboundary = -1.0\n[augment]", "method.boundary: wanted a weight of 0 or more"),
    "adjustment": ("[augment]", "[method]\nadjustment = 1.5\n[augment]", "method.adjustment: wanted a number in 0..1"),
    "limit": ("[augment]", "[method]\nlimit = -0.1\n[augment]", "method.limit: wanted 0 or more, got -0.1"),
    "error_weights": ("[augment]", "[error_loss]\nhard = 0.0\n[augment]", "error_loss.hard: wanted a weight above 0"),
    "correct": (
        "[augment]",
        "[error_loss]\ncorrect = -1\n[augment]",
        "error_loss.correct: wanted a weight of 0 or more",
    ),
    "rho": ("[augment]", "[error_loss]\nrho = 1.0\n[augment]", "error_loss.rho: wanted a number between 0 and 1"),
    "probability": ("[augment]", "[bootstrap]\nprobability = 1.5\n[augment]", "bootstrap.probability: wanted a number"),
    "keep": ("[augment]", "[bootstrap]\nkeep = 0.0\n[augment]", "bootstrap.keep: wanted a share above 0, up to 1"),
    "scale": (
        "[augment]",
        "[input]\nscale = 0.0\n[augment]",
        "input.scale: wanted a positive number up to 16.0, got 0.0",
    ),
}


@pytest.mark.parametrize(("found", "instead", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_faults_are_named(toml, found, instead, message):
    assert found in TOML
    toml.write_text(TOML.replace(found, instead, 1))
    with pytest.raises(DataError) as caught:
        load_recipe(str(toml))
    assert str(caught.value).startswith(f"recipe {toml}: {message}".replace(os.sep, "/"))


RENDERED = {
    "crops": (
        ["data.rendered=0.5"],
        r"data\.rendered: wanted 0, as rendered scenes have the classes of camvid, not of c",
    ),
    "views": (["views={rendered=3}"], r"views\.rendered: wanted 0, as .* not of cityscapes, got 3"),
}


@pytest.mark.parametrize(("changes", "message"), RENDERED.values(), ids=RENDERED)
def test_rendered_streets_teach_no_other_classes_than_their_own(toml, changes, message):
    own = ["data.classes='cityscapes'", "data.void=[]"]
    assert not load_recipe(str(toml), own).can_render
    with pytest.raises(DataError, match=message):
        load_recipe(str(toml), [*own, *changes])


def leaves(kind, section=""):
    """Path and type of every field of a recipe that is no section."""
    for name, hint in get_type_hints(kind).items():
        of = next((part for part in (hint, *get_args(hint)) if is_dataclass(part) and part is not ClassSet), None)
        yield from leaves(of, f"{section}{name}.") if of else [(section + name, hint)]


LEAVES = dict(leaves(Recipe))
# What no field of a type can hold, as TOML has it; of lists, what is wrong with the list and with its elements.
NUMBERS = ["nan", "inf", "-inf", "'1'", "true", "[]", "2026-11-29", "{a=1}"]
WRONG = {
    int: ["1.5", "2.0", *NUMBERS],
    float: NUMBERS,
    bool: ["1", "0", "'true'", "[]", "1.0"],
    str: ["1", "true", "['camvid']", "{a=1}", "07:32:00"],
    tuple[int, ...]: ["1", "'ab'", "[1.0]", "[true]", "['1']", "[[1]]", "{a=1}"],
    tuple[int, ...] | None: ["1", "'ab'", "[1.0]", "[true]", "['1']", "[[1]]", "{a=1}"],
    tuple[int, int]: ["1", "[33.0, 49]", "[33]", "[33, 49, 65]", "[true, 49]", "['33', 49]"],
    tuple[int, int] | None: ["1", "[33.0, 49]", "[33]", "[33, 49, 65]", "[true, 49]", "['33', 49]"],
    tuple[float, ...]: ["1.0", "[nan]", "[inf]", "[1, '1']", "[false]"],
    tuple[float, float, float]: ["1.0", "[0.1, 0.2]", "[0.1, 0.2, 0.3, 0.4]", "[0.1, 0.2, nan]", "[true, 0.1, 0.1]"],
    tuple[int, int, int]: ["1", "[3, 1]", "[3, 1, 3, 3]", "[3.0, 1, 3]", "[true, 1, 3]", "['3', 1, 3]"],
    float | None: NUMBERS,
    int | None: ["1.5", "2.0", *NUMBERS],
    str | None: ["1", "true", "['camvid']", "{a=1}", "07:32:00"],
    str | ClassSet: ["1", "true", "['camvid']", "07:32:00"],
    tuple[str, ...]: ["1", "'ab'", "[1]", "[true]", "[['a']]", "{a=1}"],
    Mapping[str, tuple[str, ...]]: ["1", "['a']", "{a=1}", "{a=[1]}", "{a=[['b']]}", "{a={b='c'}}"],
    Mapping[str, str]: ["1", "'text'", "{year=2008}", "{a=['b']}", "{day=2026-11-29}"],
}


SHORT = [
    f"{stage}.iterations=0" for stage in ("error_frozen", "detail_frozen", "localization")
]  # sections that the recipe lacks


def test_every_kind_of_field_is_tried():
    assert set(LEAVES.values()) == set(WRONG)
    assert len(LEAVES) > 60


@pytest.mark.parametrize("path", [path for path in LEAVES if path != "name"])
def test_a_value_of_another_type_is_named_with_its_field(toml, path):
    for text in WRONG[LEAVES[path]]:
        with pytest.raises(DataError, match=rf"^recipe .*mine\.toml: {re.escape(path)}: wanted .*, got ") as caught:
            load_recipe(str(toml), [*SHORT, f"{path}={text}"])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("augment.crop=[33.0, 49]", r"augment\.crop: wanted 2 whole numbers, got \[33\.0, 49\]"),
        ("augment.rotation=nan", r"augment\.rotation: wanted a finite number, got nan"),
        ("data.void=11", r"data\.void: wanted a list of whole numbers or nothing, got 11"),
        ("data.merge=[[1.5]]", r"data\.merge: wanted lists of texts by name, got \[\[1\.5\]\]"),
        ("seed=true", "seed: wanted a whole number, got true"),
        ("augment.flip=1", r"augment\.flip: wanted true or false, got 1"),
        ("bundle_threshold='x'", "bundle_threshold: wanted a finite number or nothing, got 'x'"),
        ("provenance.year=2008", "provenance: wanted texts by name, got "),
    ],
)
def test_what_is_wanted_is_said_in_words(toml, change, message):
    with pytest.raises(DataError, match=message):
        load_recipe(str(toml), [change])


def test_whole_numbers_are_numbers(toml):
    recipe = load_recipe(str(toml), ["detail.rate=1", "augment.scales=[1, 2]", "input.mean=[0, 0, 0]"])
    assert (recipe.detail.rate, recipe.augment.scales, recipe.input.mean) == (1, (1, 2), (0, 0, 0))


@pytest.mark.parametrize("made", [lambda: StageConfig(2.5), lambda: StageConfig(2, rate=float("nan"))], ids=["a", "b"])
def test_python_is_held_to_the_types_too(made):
    with pytest.raises(ValueError, match=r"^(iterations: wanted a whole number|rate: wanted a finite number), got "):
        made()


@pytest.mark.parametrize("base", ["5", "['camvid']", "true"])
def test_a_base_is_a_name(toml, base):
    toml.write_text(f"base = {base}\n")
    with pytest.raises(DataError, match=r"mine\.toml: base: wanted a recipe's name or path, got "):
        load_recipe(str(toml))


def test_a_file_that_is_no_text(toml):
    toml.write_bytes(b"seed = 1 # caf\xe9")
    with pytest.raises(DataError, match=r"mine\.toml: not TOML \("):
        load_recipe(str(toml))


MY_CLASSES = 'names = ["vessel", "disc", "macula"]\nvoid = ["outside", 9]\n'


@pytest.fixture
def mine(toml, tmp_path, monkeypatch):
    """Writes a recipe over the fixture's into a folder of its own, beside further files; gives its path."""
    monkeypatch.chdir("/")

    def write(data, **files):
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
        path = folder / "recipe.toml"
        path.write_text(f'base = "{toml.as_posix()}"\n{data}', encoding="utf-8")
        return str(path)

    return write


def test_classes_of_ones_own_are_a_file_beside_the_recipe(mine):
    recipe = load_recipe(mine('[data]\nclasses = "c.toml"\nvoid = [3]', c__toml=MY_CLASSES))
    assert recipe.classes.names == ("vessel", "disc", "macula")
    assert len(set(recipe.classes.colors)) == 3
    assert (recipe.cascade.classes, recipe.data.void, recipe.data.void_names) == (3, (3,), ("outside",))
    assert not recipe.can_render


def test_void_comes_with_the_classes_unless_the_recipe_says_it(toml, tmp_path):
    (tmp_path / "c.toml").write_text(MY_CLASSES)
    text = toml.read_text().replace('classes = "camvid"\nvoid = [11, 12]', 'classes = "c.toml"')
    (tmp_path / "r.toml").write_text(text)
    assert load_recipe(str(tmp_path / "r.toml")).data.void == (9,)


@pytest.mark.parametrize(
    "classes",
    ['{names = ["a", "b"]}', '{names = ["a", "b"], colors = ["#800000", [0, 128, 0]]}', '"two.txt"', '"2"'],
    ids=["names", "colours", "text", "number"],
)
def test_classes_in_a_table_a_text_or_by_number(mine, classes):
    recipe = load_recipe(mine(f"[data]\nclasses = {classes}\nvoid = []", two__txt="a\nb:0,128,0\n"))
    assert recipe.cascade.classes == 2
    assert recipe.classes.colors == ((128, 0, 0), (0, 128, 0))


def test_a_label_map_lies_beside_its_recipe(mine, tmp_path):
    path = mine('[data]\nlabel_map = "ids.json"\nvoid = []')
    assert load_recipe(path).data.label_map == str(tmp_path / "own" / "ids.json")
    assert load_recipe(mine('[data]\nlabel_map = "labelIds"\nvoid = []')).data.label_map == "labelIds"
    # What is given beside the recipe starts from where it is given.
    assert load_recipe(path, ["data.label_map='other.json'"]).data.label_map == "other.json"


def test_paths_of_a_base_start_from_its_own_folder(mine, toml, tmp_path):
    toml.write_text(toml.read_text().replace('"camvid"\nvoid = [11, 12]', '"c.toml"'))
    (tmp_path / "c.toml").write_text(MY_CLASSES)
    assert load_recipe(mine("", c__toml='names = ["a", "b"]')).classes.names[0] == "vessel"


VEHICLES = 'vehicle = ["car", "truck"]\nground = ["road"]\n'


@pytest.mark.parametrize("merge", ['"m.toml"', '{vehicle = ["car", "truck"], ground = "road"}'], ids=["file", "table"])
def test_merged_classes(mine, merge):
    recipe = load_recipe(mine(f'[data]\nclasses = "cityscapes"\nmerge = {merge}', m__toml=VEHICLES))
    assert recipe.label_classes.names == ("vehicle", "ground")
    assert recipe.merge.sets == ((13, 14), (0,))
    assert recipe.cascade.classes == 19


def test_a_merge_takes_the_place_of_another_whole(mine):
    path = mine('[data]\nclasses = "cityscapes"\nmerge = "camvid"')
    recipe = load_recipe(path)
    assert recipe.can_render
    assert recipe.label_classes.names == CLASS_SETS["camvid"].names
    changed = load_recipe(path, ['data.merge={vehicle=["car"], ground=["road"]}'])
    assert (changed.label_classes.names, changed.can_render) == (("vehicle", "ground"), False)
    assert load_recipe(path, ["data.merge={}"]).merge is None


def test_initial_weights_of_other_classes_are_told_by_name(mine):
    recipe = load_recipe("camvid")
    assert recipe.initial_rows[:3] == ((10,), (2, 3), (5,))
    assert recipe.merge is None
    own = '[data]\nclasses = {names = ["b", "a"]}\nvoid = []\n[initial]\nclasses = {names = ["x", "y", "z"]}\n'
    rows = load_recipe(mine(own + 'merge = {a = ["x", "z"], b = "y"}')).initial_rows
    assert rows == ((1,), (0, 2))


FILE_FAULTS = {
    "classes_missing": ('[data]\nclasses = "none.toml"', r"data\.classes: .*own.none\.toml: no such file"),
    "merge_missing": ('[data]\nclasses = "cityscapes"\nmerge = "none.toml"', r"data\.merge: .*none\.toml: no merge"),
    "merge_unknown": (
        '[data]\nclasses = "cityscapes"\nmerge = {a = ["cars"], b = ["road"]}',
        r"data\.merge: a: the network has no class 'cars'; did you mean car\?",
    ),
    "merge_twice": (
        '[data]\nclasses = "cityscapes"\nmerge = {a = ["car"], b = ["car"]}',
        r"data\.merge: 'car' stands in a and in b; leave it in one of them",
    ),
    "table": ('[data]\nclasses = {name = ["a", "b"]}', r"data\.classes: no such field, 'name'; did you mean names\?"),
    "initial_half": ('[initial]\nclasses = "cityscapes"', r"initial\.merge: wanted classes and merge, or neither"),
    "initial_bare": (
        '[initial]\nclasses = "cityscapes"\nmerge = {sky = ["sky"], road = ["road"]}',
        r"initial\.merge: wanted a list for each of the 11 classes, got none for 'building'",
    ),
    "also": ("[data]\nalso = 1", r"data\.also: wanted a share below 1, got 1"),
}


@pytest.mark.parametrize(("data", "message"), FILE_FAULTS.values(), ids=FILE_FAULTS)
def test_faults_of_files_and_merges_are_named(mine, data, message):
    with pytest.raises(DataError, match=message) as caught:
        load_recipe(mine(data))
    assert "\n" not in str(caught.value)
