"""Branches trained behind an ONNX file: as behind the torch module that it was exported from, and going on."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.export.network_file import open_network
from errseg_rt.networks.registry import SEMANTIC_NETWORKS
from errseg_rt.system.fields import FieldError
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.frozen import NETWORK, FrozenNetwork
from errseg_rt.training.loop import train
from errseg_rt.training.recipe_files import parse_recipe
from errseg_rt.training.stages import StageTraining
from tests.training.conftest import TINY, assert_same_training
from tests.user_network import TAPS, UserNetwork, lively, write

pytestmark = pytest.mark.usefixtures("small_scenes", "process_settings", "on_cpu")
SPEC = InputSpec(multiple=16, plus_one=True)


@pytest.fixture(scope="module")
def table():
    changed = {
        **copy.deepcopy(TINY),
        "cascade": {"semantic": "onnx", "error_width": 4, "detail_width": 4},
        "threshold": 0.2,
        "semantic": {"iterations": 0},
        "views": {"scales": [1.0], "flip": True},
        "taps": TAPS,
    }
    for stage in ("error", "error_frozen", "detail", "detail_frozen"):
        changed[stage]["batch"] = 1
    return changed


@pytest.fixture(scope="module")
def recipe(table):
    return parse_recipe("tiny", table)


@pytest.fixture(scope="module")
def module():
    return lively(UserNetwork())


@pytest.fixture(scope="module")
def path(module, tmp_path_factory):
    return write(module, tmp_path_factory.mktemp("network") / "user.onnx")


def frozen(path, names=TAPS, grid_stride=4):
    network = open_network(path, SPEC, 11)
    return FrozenNetwork.of(network, network.chosen(network.maps(), names, grid_stride), grid_stride)


def run(recipe, drive, out, network, **given):
    return train(recipe, drive, out, network=network, score_rendered=0, **given)


@pytest.fixture(scope="module")
def trained(recipe, drive, path, tmp_path_factory, small_scenes, process_settings, on_cpu):
    return run(recipe, drive, tmp_path_factory.mktemp("trained"), frozen(path))


@torch.no_grad()
def test_taps_are_those_of_the_module(module, path):
    image = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 49, 81), np.float32))
    found, wanted = frozen(path)(image), module(image)
    for name, value in found._asdict().items():
        torch.testing.assert_close(value, getattr(wanted, name), rtol=1e-5, atol=1e-5)


def test_branches_are_those_that_the_module_trains(trained, recipe, drive, module, tmp_path, monkeypatch):
    def build(classes):
        with torch.random.fork_rng():  # so that the branches start from the same weights
            return UserNetwork(classes)

    monkeypatch.setitem(SEMANTIC_NETWORKS, "user", build)
    weights = tmp_path / "user.pth"
    torch.save(module.state_dict(), weights)
    by_module = replace(recipe, cascade=replace(recipe.cascade, semantic="user"))
    path = run(by_module, drive, tmp_path / "out", None, init=weights)
    (found, _), (wanted, _) = load_cascade(trained), load_cascade(path)
    for branch in ("error", "detail"):
        for name, value in wanted.get_submodule(branch).state_dict().items():
            torch.testing.assert_close(found.get_submodule(branch).state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_checkpoints_hold_the_branches_and_name_the_network(trained, path):
    cascade, _ = load_cascade(trained)
    assert {name.partition(".")[0] for name in cascade.state_dict()} == {"error", "detail"}
    assert (cascade.semantic.note.file, cascade.semantic.note.classes) == ("user.onnx", 11)
    assert json.loads((trained.parent / "inputs.json").read_text())["network"] == cascade.semantic.note.sha256


@pytest.mark.parametrize(("stage", "step"), [("error", 1), ("detail", 2), ("detail_frozen", 1)])
def test_a_killed_training_goes_on(trained, recipe, drive, path, tmp_path, monkeypatch, stage, step):
    taken = StageTraining.training_step

    def killed(training, batch, index):
        if (training.name, training.global_step) == (stage, step):
            raise KeyboardInterrupt
        return taken(training, batch, index)

    monkeypatch.setattr(StageTraining, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, drive, tmp_path / "out", frozen(path))
    monkeypatch.undo()
    assert_same_training(run(recipe, drive, tmp_path / "out", frozen(path)), trained)


def test_it_does_not_go_on_with_another_file(trained, recipe, drive, tmp_path):
    other = write(lively(UserNetwork(), seed=1), tmp_path / "user.onnx")
    with pytest.raises(DataError, match=r"holds another training \(--network: another file\)"):
        run(recipe, drive, trained.parent, frozen(other))


def test_it_does_not_go_on_with_other_taps(trained, recipe, drive, path):
    names = {**TAPS, "low": "/low/low.0/Conv_output_0"}
    with pytest.raises(DataError, match=r"holds another training \(taps"):
        run(replace(recipe, taps=names), drive, trained.parent, frozen(path))


@pytest.mark.parametrize("damage", ["missing", "another"])
def test_a_checkpoint_wants_its_network_beside_it(trained, tmp_path, damage):
    moved = tmp_path / trained.name
    moved.write_bytes(trained.read_bytes())
    if damage == "another":
        (tmp_path / NETWORK).write_bytes((trained.parent / NETWORK).read_bytes() + b" ")
    wanted = {"missing": "cannot be read", "another": "not the frozen network that the branches beside it learned from"}
    with pytest.raises(DataError, match=wanted[damage]) as told:
        load_cascade(moved)
    assert "user.onnx" in str(told.value)


def test_a_recipe_for_a_network_of_ones_own_wants_it(recipe, drive, tmp_path):
    with pytest.raises(DataError, match="trains the branches of a network of yours: give it by --network"):
        train(recipe, drive, tmp_path / "out")


def test_weights_of_another_file_are_refused_beside_it(recipe, drive, path, tmp_path):
    with pytest.raises(DataError, match="--init is for networks that are trained"):
        run(recipe, drive, tmp_path / "out", frozen(path), init=path)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"semantic": {"iterations": 4, "checkpoint_every": 2}}, r"semantic\.iterations: wanted 0"),
        ({"cross_fit": {"folds": 2, "iterations": 50}}, r"cross_fit: wanted no folds"),
        ({"input": {"size": [64, 96]}, "views": {"scales": [0.5, 1.0]}}, r"views\.scales: wanted \[1\.0\]"),
        ({"input": {"size": [64, 96]}, "views": None}, r"views\.scales: wanted \[1\.0\]"),
        ({"taps": {"low": "a"}}, "mid and deep and high not named"),
        ({"taps": {**TAPS, "logit": "a"}}, "no tap 'logit'; did you mean logits"),
    ],
)
def test_recipes_of_frozen_networks_are_checked(table, change, wanted):
    with pytest.raises((FieldError, DataError), match=wanted):
        parse_recipe("tiny", {**table, **change})


def test_values_too_large_for_half_precision_are_kept_whole(recipe, drive, module, tmp_path):
    large = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in (large.context[0].weight, large.context[0].bias):
            tensor.mul_(1e7)
        large.head.weight.div_(1e7)
    path = run(recipe, drive, tmp_path / "out", frozen(write(large, tmp_path / "large.onnx")))
    assert np.isfinite(load_cascade(path)[1]["metrics"]["val"]["fused"]["accuracy"])


def test_a_network_that_gives_what_is_not_finite_is_told(recipe, drive, path, tmp_path, monkeypatch):
    network = frozen(path)
    raw = network._run
    monkeypatch.setattr(network, "_run", lambda image: {**raw(image), "deep": raw(image)["deep"] / 0})
    with pytest.raises(DataError, match=r"f00.: the network gives values that are not finite \(deep\)"):
        run(recipe, drive, tmp_path / "out", network)
