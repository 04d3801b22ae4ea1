"""Files of a training: what goes in comes out, and a damaged or foreign file is refused in words."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from errseg_rt.errors import DataError
from errseg_rt.networks import Cascade
from errseg_rt.training.checkpoint import AtomicCheckpointIO, load_cascade, load_semantic_weights, save_cascade

NOTES = {"recipe": {"seed": 1, "scales": [0.5, 1.0]}, "metrics": None}


@pytest.fixture
def saved(cascade, tmp_path):
    path = tmp_path / "deep" / "cascade.safetensors"
    save_cascade(path, cascade.to(memory_format=torch.channels_last), NOTES)
    return path


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=0, atol=0)


def test_cascade_comes_back_with_its_notes(cascade, saved):
    loaded, notes = load_cascade(saved)
    assert loaded.config == cascade.config
    assert not loaded.training
    assert_same_weights(loaded.state_dict(), cascade.state_dict())
    assert notes == NOTES
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_saving_replaces(cascade, saved):
    torch.nn.init.constant_(cascade.error.offset, 2)
    save_cascade(saved, cascade, {"second": True})
    loaded, notes = load_cascade(saved)
    assert loaded.error.offset.item() == 2
    assert notes == {"second": True}


def test_failed_saving_leaves_the_old_file(cascade, saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save_cascade(saved, cascade, {"not json": {1, 2}})
    assert saved.read_bytes() == before


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"absent\.safetensors: no such file; a training writes cascade\.safetensors"):
        load_cascade(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 1000, -1], ids=lambda n: f"cut_to_{n}")
def test_truncated_file(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(DataError, match="not the weights of a cascade"):
        load_cascade(saved)


def test_safetensors_of_something_else(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(DataError, match=r"other.safetensors: not the weights of a cascade \('cascade'\)"):
        load_cascade(path)


def test_weights_of_another_shape(cascade, recipe, tmp_path):
    path = tmp_path / "odd.safetensors"
    wider = replace(recipe.cascade, detail_width=8).to_dict()
    header = {"cascade": json.dumps(wider), "notes": "{}"}
    save_file({name: tensor.contiguous() for name, tensor in cascade.state_dict().items()}, path, header)
    with pytest.raises(DataError, match=r"not the weights of a cascade \(Error.s. in loading state_dict for Cascade"):
        load_cascade(path)


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


@pytest.mark.parametrize(
    ("classes", "merge"), [(19, ()), (19, ((0,), (1,))), (19, ((99,),) * 11)], ids=["none", "too_few", "out_of_range"]
)
def test_semantic_weights_that_do_not_fit(cascade, recipe, tmp_path, classes, merge):
    semantic_file(recipe, tmp_path / "w.pth", classes)
    with pytest.raises(DataError, match=r"w.pth: does not fit the semantic network"):
        load_semantic_weights(cascade, tmp_path / "w.pth", merge)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in a weight file was run",))


@pytest.mark.parametrize("content", ["code", "text", "empty", "list"])
def test_semantic_weights_that_are_none(cascade, tmp_path, content):
    path = tmp_path / "w.pth"
    if content == "code":
        torch.save({"encoder.conv1.0.weight": Trap()}, path)
    elif content == "list":
        torch.save([1, 2], path)
    else:
        path.write_bytes(b"" if content == "empty" else b"no weights at all")
    with pytest.raises(DataError, match=r"w\.pth: does not fit the semantic network"):
        load_semantic_weights(cascade, path, ())


def test_missing_semantic_weights(cascade, tmp_path):
    with pytest.raises(DataError, match=r"w\.pth: no such file; --init wants the weights"):
        load_semantic_weights(cascade, tmp_path / "w.pth", ())


def test_checkpoint_comes_back(tmp_path):
    path = tmp_path / "stage" / "last.ckpt"
    checkpoint = {"state_dict": {"w": torch.arange(3.0)}, "global_step": 7, "loops": {"epoch": [1, None]}}
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    torch.testing.assert_close(loaded.pop("state_dict"), checkpoint.pop("state_dict"), rtol=0, atol=0)
    assert loaded == checkpoint


def test_checkpoint_killed_while_writing_leaves_the_old_one(monkeypatch, tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def fill_the_disk(checkpoint, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    monkeypatch.undo()
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_checkpoint_with_code_is_refused(tmp_path):
    torch.save({"state_dict": Trap()}, tmp_path / "last.ckpt")
    for weights_only in (True, False, None):
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt", weights_only=weights_only)
