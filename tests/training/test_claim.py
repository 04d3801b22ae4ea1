"""What a folder holds a training of, told by content: what changed is named, and notes of older versions are read."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.training.claim import Inputs, check_recipe, claim, input_differences, recipe_differences
from errseg_rt.training.recipe_data import ViewsConfig
from errseg_rt.training.recipe_learning import StageConfig

NAMES = [f"f{index}" for index in range(9)]
INPUTS = Inputs(
    "of names", "of weights", ((64, 96),), {name: f"p{name} l{name}" for name in NAMES}, {"v0": "pv lv", "v1": "pw lw"}
)


@pytest.fixture
def out(tmp_path, recipe):
    claim(tmp_path / "out", recipe, INPUTS, is_finished=False)
    return tmp_path / "out"


def relabelled(frames, *names):
    return {**frames, **{name: frames[name] + "x" for name in names}}


def rewrite(path, **changes):
    """Change a note; what becomes `...` is taken out."""
    table = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in table.items() if value is not ...}))


def test_the_same_training_goes_on(out, recipe):
    check_recipe(out, recipe)
    for is_finished in (False, True):
        claim(out, recipe, INPUTS, is_finished=is_finished)
    assert recipe_differences(out, recipe) == input_differences(out, INPUTS) == []
    check_recipe(out.parent / "absent", recipe)


def test_where_the_frames_lie_does_not_matter_but_their_content(out):
    assert json.loads((out / "inputs.json").read_text())["train"] == INPUTS.train  # no path, no time


FRAMES = dict(INPUTS.train or {})
CHANGES = {
    "labels": (relabelled(FRAMES, "f3"), r"train: f3 with other labels"),
    "many_labels": (relabelled(FRAMES, *NAMES), r"train: f0 and 8 more with other labels"),
    "pictures": ({**FRAMES, "f4": "other lf4"}, r"train: f4 with other pictures"),
    "gone": ({name: FRAMES[name] for name in NAMES[2:]}, r"train: f0 and 1 more gone"),
    "new": ({**FRAMES, "g0": "a b"}, r"train: g0 new"),
    "renamed": (
        {**{name: FRAMES[name] for name in NAMES[1:]}, "g0": FRAMES["f0"]},
        r"train: f0 gone; train: g0 new",
    ),
}


@pytest.mark.parametrize(("train", "message"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("is_finished", [False, True], ids=["killed", "finished"])
def test_what_became_of_the_frames_is_named(out, recipe, train, message, is_finished):
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(
        DataError, match=rf"out: holds another training \({message}\); give another --out, or remove the"
    ):
        claim(out, recipe, replace(INPUTS, train=train), is_finished=is_finished)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_cascade_of_unknown_descent_is_no_finished_training(tmp_path, recipe):
    with pytest.raises(
        DataError, match=r"holds a finished training, but not what it is of \(recipe\.json\); give another"
    ):
        claim(tmp_path, recipe, INPUTS, is_finished=True)


@pytest.mark.parametrize("init", [None, "others"])
def test_other_initial_weights_are_noticed(out, recipe, init):
    with pytest.raises(DataError, match=r"holds another training \(--init: other weights\)"):
        claim(out, recipe, replace(INPUTS, init=init), is_finished=False)


def test_what_is_only_scored_on_may_change_until_it_was(out, recipe):
    val = relabelled(dict(INPUTS.val or {}), "v1")
    with pytest.raises(DataError, match=r"finished, and scored on other frames \(val: v1 with other labels"):
        claim(out, recipe, replace(INPUTS, val=val), is_finished=True)
    claim(out, recipe, replace(INPUTS, val=val), is_finished=False)
    claim(out, recipe, replace(INPUTS, val=val), is_finished=True)


def test_of_many_differences_the_first_are_named(out, recipe):
    other = replace(
        recipe, seed=9, threshold=0.1, name="x", detail=StageConfig(50, 3, 0.5, 0.5, 25), views=ViewsConfig()
    )
    with pytest.raises(DataError, match=r"\((?:[^;]+: [^;]+ there, [^;]+ here; ){5}4 more\); give another --out"):
        check_recipe(out, other)


def test_a_label_map_is_told_by_what_it_says_and_not_by_its_name(out, recipe):
    moved = replace(recipe, data=replace(recipe.data, void=(), label_map="elsewhere/map.json"))
    plain = replace(moved, data=replace(moved.data, label_map=None))
    assert recipe_differences(out, moved) == recipe_differences(out, plain) == ["data.void: [11] there, [] here"]
    # An older version did not know label maps: it had none.
    mapped = replace(INPUTS, label_map="says")
    assert input_differences(out, mapped) == ["label map: ids mean something else"]
    with pytest.raises(
        DataError, match=r"out: holds another training \(label map: ids mean something else\); give anot"
    ):
        claim(out, recipe, mapped, is_finished=False)
    rewrite(out / "inputs.json", label_map="says")
    assert input_differences(out, mapped) == []
    assert input_differences(out, replace(INPUTS, label_map="says more")) == input_differences(out, INPUTS) != []


OLDER = {
    "a_section": ("bootstrap", None),
    "several": ("error_loss", None),
    "a_stage": ("error_frozen", None),
    "a_field": ("input", "work_pixels"),
    "a_field_of_the_networks": ("cascade", "error_features"),
    "first_id": ("data", "first_id"),
    "label_map": ("data", "label_map"),
}


@pytest.mark.parametrize(("section", "field"), OLDER.values(), ids=OLDER)
def test_fields_that_an_older_version_did_not_know_have_their_defaults(out, recipe, section, field):
    plain = replace(recipe, error_frozen=StageConfig(0))
    (out / "recipe.json").write_text(json.dumps(asdict(plain)))
    table = json.loads((out / "recipe.json").read_text())
    if field is None:
        rewrite(out / "recipe.json", **{section: ...})
    else:
        del table[section][field]
        rewrite(out / "recipe.json", **{section: table[section]})
    assert recipe_differences(out, plain) == []
    claim(out, plain, INPUTS, is_finished=False)
    assert json.loads((out / "recipe.json").read_text()) == json.loads(json.dumps(asdict(plain)))


def test_fields_whose_defaults_are_not_what_the_recipe_wants_are_named(out, recipe):
    limited = replace(
        recipe, input=replace(recipe.input, work_pixels=500), error_frozen=StageConfig(4, checkpoint_every=2)
    )
    table = json.loads((out / "recipe.json").read_text())
    del table["input"]["work_pixels"]
    rewrite(out / "recipe.json", input=table["input"], error_frozen=..., seed=...)
    assert recipe_differences(out, limited) == [
        "seed: nothing there, 3 here",
        "input.work_pixels: 0 there, 500 here",
        "error_frozen.iterations: 0 there, 4 here",
        "error_frozen.checkpoint_every: 50 there, 2 here",
    ]
    assert InputSpec().work_pixels == 0


def test_fields_of_a_newer_version_are_named(out, recipe):
    table = json.loads((out / "recipe.json").read_text())
    rewrite(out / "recipe.json", detail={**table["detail"], "warm_up": 5}, teacher="x")
    assert recipe_differences(out, recipe) == [
        "detail.warm_up: 5 there, and not known to this version",
        'teacher: "x" there, and not known to this version',
    ]


def test_only_the_parts_asked_for_are_compared(out, recipe):
    other = replace(recipe, seed=9, cascade=replace(recipe.cascade, detail_width=8, error_width=8))
    assert recipe_differences(out, other, ["data", "cascade.error"]) == []
    assert recipe_differences(out, other, ["seed", "cascade.error_width"]) == [
        "seed: 3 there, 9 here",
        "cascade.error_width: 4 there, 8 here",
    ]


def test_a_training_from_before_contents_were_noted_goes_on(out, recipe):
    (out / "inputs.json").write_text(json.dumps({"frames": "of names", "init": "of weights"}))
    claim(out, recipe, replace(INPUTS, rendered=()), is_finished=False)
    assert json.loads((out / "inputs.json").read_text())["train"] == FRAMES  # from now on they are


def test_before_contents_were_noted_names_and_rendered_sizes_tell(out):
    (out / "inputs.json").write_text(json.dumps({"frames": "of names", "init": "of weights"}))
    assert input_differences(out, replace(INPUTS, rendered=((360, 480),))) == []
    assert input_differences(out, INPUTS) == ["rendered frames: 360x480 there, 64x96 here, as the data"]
    assert input_differences(out, replace(INPUTS, frames="others")) == ["train: other frames"]
    (out / "inputs.json").unlink()
    assert input_differences(out, INPUTS) == []


def check(out, recipe):
    check_recipe(out, recipe)
    claim(out, recipe, INPUTS, is_finished=False)


DAMAGED = {"empty": "", "cut": '{"seed": 3, "na', "list": "[1]", "text": '"x"', "null": "null"}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["recipe.json", "inputs.json"])
def test_damaged_notes_are_named(out, recipe, name, text):
    (out / name).write_text(text)
    with pytest.raises(DataError, match=rf"out/{name}: damaged \(.*\); put it back, or remove .*out to train anew"):
        check(out, recipe)


@pytest.mark.parametrize(
    "changes",
    [{"frames": ...}, {"init": 3}, {"rendered": [1]}, {"train": {"a": 1}}, {"train": [1]}, {"more": 1}],
    ids=str,
)
def test_notes_of_inputs_that_are_none_are_named(out, recipe, changes):
    rewrite(out / "inputs.json", **changes)
    with pytest.raises(
        DataError, match=r"out/inputs\.json: damaged \(.*\); put it back, or remove .*out to train anew"
    ):
        claim(out, recipe, INPUTS, is_finished=False)
