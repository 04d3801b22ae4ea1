"""Files are whole or not there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from errseg_rt.system.atomic import write_atomically, write_json


def test_what_was_written_takes_the_place(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    for content in ("first", "second"):
        with write_atomically(path) as temporary:
            temporary.write_text(content)
            assert temporary.parent == path.parent
            assert temporary.suffix == ".txt"
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_the_old_content_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("old", [None, "old"], ids=["nothing_there", "old_file_there"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_exception_all_is_as_it_was(tmp_path: Path, old, error) -> None:
    path = tmp_path / "file.bin"
    if old:
        path.write_text(old)
    with pytest.raises(error), write_atomically(path) as temporary:  # noqa: PT012 the block is what is tested
        temporary.write_text("half")
        raise error
    assert [item.name for item in tmp_path.iterdir()] == (["file.bin"] if old else [])
    assert old is None or path.read_text() == old


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with write_atomically(path) as one, write_atomically(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_whole_and_holds_finite_numbers(tmp_path: Path) -> None:
    path, answer = tmp_path / "deep" / "answer.json", {"name": "ä", "share": 0.25, "none": None, "list": [1, 2]}
    write_json(path, answer)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == answer
    assert text.endswith("}\n")
    assert '\n  "share": 0.25' in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"share": float("nan")})
    assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.json", "x" * 250 + ".json", "x" * 251 + ".mp4", "x." + "y" * 253])
def test_no_name_is_too_long_for_a_temporary_one(tmp_path: Path, name) -> None:
    assert len(name) <= 255
    with write_atomically(tmp_path / name) as temporary:
        assert temporary.name.startswith(".")
        temporary.write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        with write_atomically(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writing into an open file raises it

    with pytest.raises(OSError, match=r"No space left on device: '.*a\.json'") as error:
        full(tmp_path / "a.json")
    assert error.value.errno == errno.ENOSPC
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"'.*folder'$"):
        write_json(tmp_path / "folder", {})
