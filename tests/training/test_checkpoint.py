"""Files of a training: what goes in comes out, and a damaged or foreign file is refused in words."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from errseg_rt.errors import DataError
from errseg_rt.training.checkpoint import AtomicCheckpointIO, check_checkpoint, load_cascade, save_cascade

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
    with pytest.raises(DataError, match=r"other.safetensors: damaged, or not the weights of a cascade \(no note of"):
        load_cascade(path)


def test_weights_of_another_shape(cascade, recipe, tmp_path):
    path = tmp_path / "odd.safetensors"
    wider = replace(recipe.cascade, detail_width=8).to_dict()
    header = {"cascade": json.dumps(wider), "notes": "{}"}
    save_file({name: tensor.contiguous() for name, tensor in cascade.state_dict().items()}, path, header)
    with pytest.raises(DataError, match=r"not the weights of a cascade \(Error.s. in loading state_dict for Cascade"):
        load_cascade(path)


PARTS = {"state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "global_step": 7, "loops": {"epoch": [1, None]}}


def test_checkpoint_comes_back(tmp_path):
    path = tmp_path / "stage" / "last.ckpt"
    checkpoint = {**PARTS, "state_dict": {"w": torch.arange(3.0)}}
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    torch.testing.assert_close(loaded.pop("state_dict"), checkpoint.pop("state_dict"), rtol=0, atol=0)
    assert loaded == checkpoint


def test_checkpoint_killed_while_writing_leaves_the_old_one(monkeypatch, tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({**PARTS, "global_step": 1}, path)

    def fill_the_disk(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({**PARTS, "global_step": 2}, path)
    monkeypatch.undo()
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in a checkpoint was run",))


def test_checkpoint_with_code_is_refused(tmp_path):
    torch.save({**PARTS, "state_dict": Trap()}, tmp_path / "last.ckpt")
    for weights_only in (True, False, None):
        with pytest.raises(
            DataError, match=r"last\.ckpt: holds more than weights .*; remove it to start the stage anew"
        ):
            AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt", weights_only=weights_only)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    for content in ({"state_dict": {}}, [1], torch.ones(3)):
        torch.save(content, path)
        with pytest.raises(
            DataError, match=r"last\.ckpt: not a checkpoint of a training; remove it to start the stage"
        ):
            check_checkpoint(path, {})
    torch.save({**PARTS, "state_dict": {"w": torch.ones(3)}}, path)
    check_checkpoint(path, {"w": torch.zeros(3)})
    for other in ({}, {"w": torch.zeros(4)}, {"v": torch.zeros(3)}):
        with pytest.raises(
            DataError, match=r"last\.ckpt: a checkpoint of another network; remove it to start the stage"
        ):
            check_checkpoint(path, other)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_an_error_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=0))
    (tmp_path / ".00000000.tmp.ckpt").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*last\.ckpt'"):
        AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(300_000)}, path)
    assert path.read_bytes() == b"old"
