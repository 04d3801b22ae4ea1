"""Which files lie in a folder: by every name they have, through links, without what systems put beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from errseg_rt.frames.files import find_files


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(root: Path, *ends: str) -> list[str]:
    files, broken = find_files(root, ends or (".png",))
    assert broken == {}
    return [path.relative_to(root).as_posix() for path in files]


def test_all_that_ends_as_wanted(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.PNG", "deep/er/c_x.Png", "d.jpg", "d.png/e.png", "png")
    assert found(tmp_path) == ["a.PNG", "b.png", "d.png/e.png", "deep/er/c_x.Png"]
    assert found(tmp_path, "_X.png", ".JPG") == ["d.jpg", "deep/er/c_x.Png"]


def test_what_systems_put_beside_files_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", "__MACOSX/._a.png", "__MACOSX/a.png", "@eaDir/a.png/SYNO.png")
    touch(tmp_path, ".ipynb_checkpoints/a-checkpoint.png", ".1a2b.tmp.png", ".git/b.png")
    assert found(tmp_path) == ["a.png"]


def test_a_hidden_folder_that_is_named_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden/a.png")
    assert found(tmp_path / ".hidden") == ["a.png"]


def test_every_name_of_a_file_counts(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png", "set/own.png")
    (tmp_path / "set" / "day1").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "day2").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "linked.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "set" / "own_too.png").symlink_to("own.png")
    assert found(tmp_path / "set") == ["day1/a.png", "day2/a.png", "linked.png", "own.png", "own_too.png"]


def test_a_link_back_ends_where_it_began(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/c.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to("self")
    assert find_files(tmp_path / "a", (".png",)) == (
        [tmp_path / "a/b/c.png"],
        {tmp_path / "a/self": "a link that leads nowhere"},
    )


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    for name in ("b.png", "day1", "day1.5", "notes.txt", "b.jpg", ".#lock"):
        (tmp_path / name).symlink_to(tmp_path / "unmounted" / name)
    files, broken = find_files(tmp_path, (".png",))
    assert [path.name for path in files] == ["a.png"]
    assert broken == dict.fromkeys(
        (tmp_path / name for name in ("b.png", "day1", "day1.5")), "a link that leads nowhere"
    )


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files, broken = find_files(tmp_path, (".png",))
    assert [path.name for path in files] == ["a.png"]
    assert broken == {tmp_path / "locked": "cannot be listed (Permission denied)"}


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    touch(tmp_path, name)
    assert found(tmp_path) == [name]
