"""Weights that others have saved: taken as they are wrapped, and refused with what does not fit."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from errseg_rt.errors import DataError
from errseg_rt.networks import Cascade
from errseg_rt.networks.tensorflow.crc32c import masked_crc32c
from errseg_rt.training.checkpoint import save_cascade
from errseg_rt.training.initial_weights import load_semantic_weights
from tests.networks.tensorflow.writer import write_checkpoint


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=0, atol=0)


def semantic_file(recipe, path, classes):
    torch.manual_seed(9)
    source = Cascade(replace(recipe.cascade, classes=classes)).semantic
    torch.save(source.state_dict(), path)
    return source.state_dict()


def test_semantic_weights_of_the_same_classes(cascade, recipe, tmp_path):
    weights = semantic_file(recipe, tmp_path / "w.pth", 11)
    error = {name: tensor.clone() for name, tensor in cascade.error.state_dict().items()}
    load_semantic_weights(cascade, tmp_path / "w.pth", ())
    assert_same_weights(cascade.semantic.state_dict(), weights)
    assert_same_weights(cascade.error.state_dict(), error)


def test_merged_classes_start_at_the_mean_of_their_rows(cascade, recipe, tmp_path):
    weights = semantic_file(recipe, tmp_path / "w.pth", 19)
    merge = ((0, 18), (2, 3, 5), *((row,) for row in range(6, 15)))
    load_semantic_weights(cascade, tmp_path / "w.pth", merge)
    for name, tensor in cascade.semantic.state_dict().items():
        if "_TR." not in name and "_BR." not in name:
            torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
            continue
        assert len(tensor) == 11
        for row, merged in zip(tensor, merge, strict=True):
            torch.testing.assert_close(row, sum(weights[name][old] for old in merged) / len(merged))


def test_as_many_classes_in_another_order_change_their_rows(cascade, recipe, tmp_path):
    weights = semantic_file(recipe, tmp_path / "w.pth", 11)
    order = [(index + 3) % 11 for index in range(11)]
    load_semantic_weights(cascade, tmp_path / "w.pth", tuple((old,) for old in order))
    for name, tensor in cascade.semantic.state_dict().items():
        moved = weights[name][order] if "_TR." in name or "_BR." in name else weights[name]
        torch.testing.assert_close(tensor, moved, rtol=0, atol=0)


def test_weights_of_the_cascades_own_classes_are_taken_as_they_are(cascade, recipe, tmp_path):
    weights = semantic_file(recipe, tmp_path / "w.pth", 11)
    load_semantic_weights(cascade, tmp_path / "w.pth", tuple((old,) for old in range(8, 19)))
    assert_same_weights(cascade.semantic.state_dict(), weights)


@pytest.mark.parametrize(
    ("classes", "merge"), [(19, ()), (19, ((0,), (1,))), (19, ((99,),) * 11)], ids=["none", "too_few", "out_of_range"]
)
def test_semantic_weights_of_other_classes(cascade, recipe, tmp_path, classes, merge):
    semantic_file(recipe, tmp_path / "w.pth", classes)
    message = (
        r"w\.pth: does not fit the semantic network, squeezenas of 11 classes: of another shape "
        r"decoder\._1x1_TR\.weight is \[19, 128, 1, 1\], wanted \[11, 128, 1, 1\], .*; where its classes are others, "
        r"initial\.classes and initial\.merge say which of them each class merges$"
    )
    with pytest.raises(DataError, match=message):
        load_semantic_weights(cascade, tmp_path / "w.pth", merge)


@pytest.fixture
def weights(recipe):
    """What another training of the same network has learned."""
    torch.manual_seed(9)
    return Cascade(recipe.cascade).semantic.state_dict()


def prefixed(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


WRAPPED = {
    "data_parallel": lambda weights: prefixed("module.", weights),
    "model": lambda weights: prefixed("model.", weights),
    "both": lambda weights: prefixed("module.model.", weights),
    "compiled": lambda weights: prefixed("_orig_mod.", weights),
    "nested": lambda weights: {"state_dict": weights, "epoch": 3},
    "nested_as_model": lambda weights: {"model": weights, "optimizer": {"state": {}, "param_groups": []}},
    "nested_as_model_state": lambda weights: {"model_state": weights},
    "twice": lambda weights: {"model": {"state_dict": prefixed("model.", weights)}},
    "with_a_loss": lambda weights: {"state_dict": {**prefixed("model.", weights), "loss.weight": torch.ones(11)}},
    "without_counts": lambda weights: {n: t for n, t in weights.items() if not n.endswith("num_batches_tracked")},
    "half": lambda weights: {name: t.half() if t.is_floating_point() else t for name, t in weights.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_weights_are_found_where_they_lie(cascade, weights, tmp_path, wrap):
    torch.save(wrap(weights), tmp_path / "w.pth")
    load_semantic_weights(cascade, tmp_path / "w.pth", ())
    for name, tensor in cascade.semantic.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            wanted = weights[name].half().float() if wrap is WRAPPED["half"] else weights[name]
            torch.testing.assert_close(tensor, wanted, rtol=0, atol=0)


def test_the_branch_of_another_training_is_taken(cascade, recipe, tmp_path):
    torch.manual_seed(9)
    other = Cascade(recipe.cascade)
    save_cascade(tmp_path / "cascade.safetensors", other, {})
    load_semantic_weights(cascade, tmp_path / "cascade.safetensors", ())
    assert_same_weights(cascade.semantic.state_dict(), other.semantic.state_dict())


def test_safetensors_are_told_by_their_content(cascade, weights, tmp_path):
    save_file(prefixed("module.", weights), tmp_path / "w.pth")
    load_semantic_weights(cascade, tmp_path / "w.pth", ())
    assert_same_weights(cascade.semantic.state_dict(), weights)


@pytest.mark.parametrize("name", ["squeezenas", "deeplabv3plus-resnet50"])
def test_weights_of_a_network_come_back(recipe, tmp_path, name):
    config = replace(recipe.cascade, semantic=name)
    source, target = Cascade(config), Cascade(config)
    torch.save({"state_dict": prefixed("module.", source.semantic.state_dict())}, tmp_path / "w.pth")
    load_semantic_weights(target, tmp_path / "w.pth", ())
    assert_same_weights(target.semantic.state_dict(), source.semantic.state_dict())


def test_a_checkpoint_of_tensorflow_is_meant_by_its_prefix(cascade, weights, tmp_path):
    numbers = {name: tensor.numpy() for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    write_checkpoint(tmp_path / "model.ckpt", numbers, checksum=lambda data: masked_crc32c(data).to_bytes(4, "little"))
    load_semantic_weights(cascade, tmp_path / "model.ckpt", ())
    found = cascade.semantic.state_dict()
    assert_same_weights({name: found[name] for name in numbers}, {name: weights[name] for name in numbers})


def test_a_pointer_of_git_lfs_in_a_checkpoint_is_named(cascade, tmp_path):
    write_checkpoint(tmp_path / "model.ckpt", {"weights": np.ones(3, np.float32)})
    shard = tmp_path / "model.ckpt.data-00000-of-00001"
    shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(DataError, match=r"data-00000-of-00001: a pointer of Git LFS"):
        load_semantic_weights(cascade, tmp_path / "model.ckpt", ())


@pytest.mark.parametrize("names", ["ours", "torchvision"])
def test_a_backbone_is_enough_where_the_semantic_branch_learns(recipe, tmp_path, names):
    cascade = Cascade(replace(recipe.cascade, semantic="deeplabv3plus-resnet50"))
    torch.manual_seed(9)
    source = Cascade(cascade.config).semantic.backbone.state_dict()
    head = {name: t.clone() for name, t in cascade.semantic.state_dict().items() if not name.startswith("backbone.")}
    saved = prefixed("backbone.", source) if names == "ours" else {**source, "fc.weight": torch.ones(9)}
    torch.save(saved, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"does not fit the semantic network, .*: missing aspp\."):
        load_semantic_weights(cascade, tmp_path / "w.pth", ())
    load_semantic_weights(cascade, tmp_path / "w.pth", (), learns=True)
    assert_same_weights(cascade.semantic.backbone.state_dict(), source)
    found = cascade.semantic.state_dict()
    assert_same_weights({name: found[name] for name in head}, head)


def test_a_head_without_its_backbone_is_not_enough(recipe, tmp_path):
    cascade = Cascade(replace(recipe.cascade, semantic="deeplabv3plus-resnet50"))
    head = {name: t for name, t in cascade.semantic.state_dict().items() if not name.startswith("backbone.")}
    torch.save(head, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r": missing backbone\."):
        load_semantic_weights(cascade, tmp_path / "w.pth", (), learns=True)


CONV, BIAS = "encoder.conv1.0.weight", "decoder._1x1_TR.bias"
MISFITS = {
    "missing": (lambda w: w.pop(CONV), rf": missing {CONV}$"),
    "unexpected": (lambda w: w.update({"head.weight": torch.ones(2)}), r": unexpected head\.weight$"),
    "renamed": (lambda w: w.update({"conv.weight": w.pop(CONV)}), rf": missing {CONV}; unexpected conv\.weight$"),
    "no_tensor": (lambda w: w.update({BIAS: 3}), rf": of another kind {BIAS} is no tensor but int$"),
    "shape": (
        lambda w: w.update({CONV: torch.ones(5)}),
        rf": of another shape {CONV} is \[5\], wanted \[16, 3, 3, 3\];",
    ),
    "nan": (lambda w: w[BIAS].fill_(float("nan")), rf": not finite {BIAS}$"),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
@pytest.mark.parametrize("wrap", [WRAPPED["twice"], dict], ids=["wrapped", "plain"])
def test_what_does_not_fit_is_named(cascade, weights, tmp_path, change, message, wrap):
    before = {name: tensor.clone() for name, tensor in cascade.semantic.state_dict().items()}
    change(weights)
    torch.save(wrap(weights), tmp_path / "w.pth")
    with pytest.raises(
        DataError, match=r"w\.pth: does not fit the semantic network, squeezenas of 11 classes" + message
    ):
        load_semantic_weights(cascade, tmp_path / "w.pth", ())
    assert_same_weights(cascade.semantic.state_dict(), before)


def test_of_many_names_the_first_are_listed(cascade, recipe, tmp_path):
    other = Cascade(replace(recipe.cascade, semantic="pspnet-resnet50")).semantic.state_dict()
    torch.save(other, tmp_path / "w.pth")
    message = (
        r"missing (\S+, ){2}\S+ and \d+ more; unexpected (\S+, ){2}\S+ and \d+ more; its names begin with "
        r"backbone\., pyramid\., fuse\. and others, those of the network with encoder\., decoder\.$"
    )
    with pytest.raises(DataError, match=message):
        load_semantic_weights(cascade, tmp_path / "w.pth", ())


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in a weight file was run",))


def saved(value, **how):
    def write(path):
        torch.save(value, path, **how)

    return write


def cut(keep):
    def write(path):
        torch.save({"w": torch.zeros(3000)}, path)
        path.write_bytes(path.read_bytes()[:keep])

    return write


def with_a_hole(path):
    torch.save({"w": torch.ones(3000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 100] = bytes(100)
    path.write_bytes(content)


def damaged_safetensors(path):
    save_file({"w": torch.zeros(3000)}, path)
    path.write_bytes(path.read_bytes()[:-100])


UNREADABLE = {
    "empty": (lambda path: path.write_bytes(b""), "empty; --init wants the weights of the semantic network"),
    "text": (
        lambda path: path.write_bytes(b"no weights at all"),
        "damaged, or not written by torch.save; --init wants",
    ),
    "zeros": (lambda path: path.write_bytes(bytes(999)), "damaged, or not written by torch.save; --init wants"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "damaged, or not written by torch.save; "),
    "half": (cut(6000), "damaged, or not written by torch.save; "),
    "end_missing": (cut(-50), "damaged, or not written by torch.save; "),
    "hole": (with_a_hole, r"damaged \(the checksum of \S+ is wrong\); "),
    "code": (saved({"w": Trap()}), r"holds more than weights \(_pytest\.outcomes\.\w+\), which is not loaded, as that"),
    "numpy": (saved({"w": np.float64(3)}), r"holds more than weights \(numpy\.\S+\), which is not loaded"),
    "module": (saved(nn.Linear(2, 2)), r"holds more than weights \(torch\.nn\.modules\.linear\.Linear\), which is not"),
    "list": (saved([1, 2]), "does not fit the semantic network, .*: it holds no weights by name"),
    "nothing": (saved({}), "does not fit the semantic network, .*: it holds no weights by name"),
    "safetensors": (damaged_safetensors, r"damaged \(.*\); --init wants the weights"),
    "folder": (lambda path: path.mkdir(), "a folder; --init wants the weights of the semantic network"),
    "missing": (
        lambda path: None,
        r"no such file; --init wants the weights of the semantic network, its state_dict\(\)",
    ),
}


@pytest.mark.parametrize(("write", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_without_weights_is_one_line(cascade, tmp_path, write, message):
    path = tmp_path / "w.pth"
    write(path)
    with pytest.raises(DataError, match=rf"w\.pth: {message}") as caught:
        load_semantic_weights(cascade, path, ())
    assert str(caught.value).isprintable()  # no line breaks, no terminal codes


def test_files_of_old_torch_are_read(cascade, weights, tmp_path):
    torch.save(weights, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    load_semantic_weights(cascade, tmp_path / "w.pth", ())
    assert_same_weights(cascade.semantic.state_dict(), weights)
