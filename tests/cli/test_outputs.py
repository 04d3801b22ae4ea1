"""Where results go is looked at before the work, and one that fails does not lose the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from errseg_rt.cli.outputs import Outputs, check_apart, check_file, check_folder
from errseg_rt.errors import DataError


def test_files_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "old.json").touch()
    (tmp_path / "link.json").symlink_to(tmp_path / "gone.json")
    for name in ("new.json", "old.json", "link.json", "deep/er/new.json"):
        check_file(tmp_path / name)
    check_file(None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "old.json"]  # nothing is made


def test_files_that_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, message in (
        (".", "is a folder, wanted a file to write"),
        (os.devnull, "is no plain file"),
        ("file/a.json", "cannot be written, as .*file exists and is a file"),
        ("file/deep/a.json", "as .*file exists and is a file"),
    ):
        with pytest.raises(DataError, match=message):
            check_file(tmp_path / name)


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_folder(None)
    for name in (".", "new", "new/er"):
        check_folder(tmp_path / name)
    for name in ("file", "file/new"):
        with pytest.raises(DataError, match=r"as .*file exists and is a file"):
            check_folder(tmp_path / name)


def test_folders_of_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    for check, name in ((check_file, "a.json"), (check_folder, "."), (check_folder, "new/er")):
        with pytest.raises(DataError, match=f"as {tmp_path} is not writable for this user"):
            check(tmp_path / name)


def test_a_relative_path_is_one_of_the_working_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    check_file(Path("a.json"))
    with pytest.raises(DataError, match="file exists and is a file"):
        check_file(Path("file/a.json"))


def test_one_that_fails_does_not_lose_the_others() -> None:
    outputs, written = Outputs(), []
    for name, fault in (
        ("a", None),
        ("b", OSError(28, "No space left on device")),
        ("c", DataError("c: odd")),
        ("d", None),
    ):
        with outputs.writing(Path(name)):
            if fault:
                raise fault
            written.append(name)
    assert written == ["a", "d"]
    assert outputs.faults == ["b: cannot be written (No space left on device)", "c: odd"]
    with pytest.raises(ValueError, match="of the program"), outputs.writing(Path("e")):
        raise ValueError("a fault of the program")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("segment", "a.png"), "--out"),
        (("demo",), "--out"),
        (("export", "cascade.safetensors"), "--out"),
        (("build-engine", "camvid", "--engine", "onnxruntime", "--precision", "int8"), "--out"),
        (("build-engine", "camvid"), "--timing-cache"),
        (("train", "camvid"), "--out"),
        (("evaluate", "camvid", "--data", "."), "--json"),
        (("calibrate", "camvid", "--data", "."), "--json"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_every_command_looks_at_its_outputs_first(cli, tmp_path: Path, monkeypatch, command, option) -> None:
    """A path below a file: nothing else of what is wrong is said, and nothing is done."""
    if command[0] == "export":
        pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    done = cli(*command, option, tmp_path / "file" / "deep" / "out")
    assert (done.code, done.out) == (2, "")
    assert (
        done.err
        == f"error: {tmp_path / 'file/deep/out'}: cannot be written, as {tmp_path / 'file'} exists and is a file\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("link", "link/new"):
        with pytest.raises(DataError, match=r"link is a link that leads nowhere; mend or remove it"):
            check_folder(tmp_path / name)


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    check_apart(None, None, tmp_path / "a", tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for other in ("a", "link"):
        with pytest.raises(DataError, match="is to be written twice; give each output a file of its own"):
            check_apart(tmp_path / "a", None, tmp_path / other)
