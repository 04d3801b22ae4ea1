"""Whether results can be written is asked before a training begins."""

from __future__ import annotations

import os

import pytest

from errseg_rt.errors import DataError
from errseg_rt.system.atomic import write_atomically
from errseg_rt.training.outputs import check_outputs
from errseg_rt.training.recipe import STAGES


def test_a_folder_that_is_missing_is_made_and_left_empty(tmp_path):
    check_outputs(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    check_outputs(tmp_path / "a" / "b")


class Killed(BaseException):
    """Ends a program as a kill does: nothing is cleared away."""


def die_while_writing(path):
    with pytest.MonkeyPatch.context() as patch, write_atomically(path) as temporary:
        temporary.write_text("half of it")
        patch.setattr(type(temporary), "unlink", lambda *_, **__: None)
        raise Killed


def test_what_a_kill_left_half_written_goes_and_nothing_else(tmp_path):
    folders = [tmp_path, *(tmp_path / name for name in ("taps", "detail", "folds/0/semantic"))]
    others = [folder / name for folder in folders for name in ("a.tmp", ".hidden", "last.ckpt", ".tmp.ckpt")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("stays")
    for folder in folders:
        for name in ("last.ckpt", "00001_0.75_flip.safetensors", "recipe.json", "bare"):
            with pytest.raises(Killed):
                die_while_writing(folder / name)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == len(others) + 4 * len(folders)
    check_outputs(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)


@pytest.mark.parametrize("name", ["", "logs", "taps", "folds", "folds/0/semantic", *STAGES])
def test_a_file_where_a_folder_shall_be_is_named(tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(DataError, match=rf"{path}: cannot be written to \(.*\); give another --out"):
        check_outputs(tmp_path / "out")


@pytest.mark.parametrize("name", ["cascade", *STAGES])
def test_a_folder_where_a_file_shall_be_is_named(tmp_path, name):
    (tmp_path / f"{name}.safetensors").mkdir()
    with pytest.raises(DataError, match=rf"{name}\.safetensors: a folder, where a file shall be written; give another"):
        check_outputs(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
@pytest.mark.parametrize("name", ["", "taps", "detail"])
def test_a_folder_of_somebody_else_is_named(tmp_path, name):
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    path.chmod(0o500)
    try:
        with pytest.raises(DataError, match=rf"{path}: cannot be written to \(Permission denied\); give another --out"):
            check_outputs(tmp_path)
    finally:
        path.chmod(0o700)
