"""Kept kernels: found wherever they can be read, and never in the way."""

from __future__ import annotations

import errno
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from errseg_rt.kernels import cache as module
from errseg_rt.kernels.cache import Root
from errseg_rt.kernels.compiled import compiled


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two places for kernels, and no other."""
    roots = [Root(tmp_path / name, False) for name in ("first", "second")]
    monkeypatch.setattr(module, "roots", lambda: roots)
    module._say_once.cache_clear()
    first, second = (root.folder(Path(__file__)) for root in roots)
    return first, second


def run(function: Callable[..., Any] = double) -> bool:
    """Call a function as a new process would, from the cache: whether it was there."""
    kernel: Any = compiled(function)
    assert kernel(21) == function(21)
    return sum(kernel.stats.cache_hits.values()) == 1


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*.{suffix}"))


def make_read_only(monkeypatch: pytest.MonkeyPatch, number: int, *places: Path) -> None:
    """Have every file that is opened for writing in these places fail with this error, for whoever asks."""
    opened = module._CheckedFiles._open_for_write

    def write(self, path):
        if any(place in Path(path).parents for place in places):
            raise OSError(number, "not here", path)
        return opened(self, path)

    monkeypatch.setattr(module._CheckedFiles, "_open_for_write", write)


def test_what_was_compiled_is_kept_in_the_first_folder(folders) -> None:
    first, second = folders
    assert not run()
    assert run()
    assert len(files(first, "nbi")) == len(files(first, "nbc")) == 1
    assert not second.exists()


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "garbage": lambda path: path.write_bytes(b"\x80\x05garbage" * 9),
    "text": lambda path: path.write_text("not a pickle\n"),
    "another_pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1}) * 2),
    "a_bit": flip_a_bit,
    "gone": Path.unlink,
    "a_folder": become_a_folder,
}


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_passed_over_and_mended(folders, caplog, damage, suffix) -> None:
    first, _ = folders
    run()
    run(triple)
    (path,) = (path for path in files(first, suffix) if "double" in path.name)
    DAMAGE[damage](path)
    caplog.clear()
    assert not run() or (suffix, damage) == ("nbi", "a_bit")  # an index may lose a bit that nobody reads
    assert run()
    assert run(triple)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_warm_cache_that_cannot_be_written_is_read(folders, monkeypatch, caplog, number) -> None:
    first, second = folders
    run()
    make_read_only(monkeypatch, number, first)
    assert run()
    assert not run(triple)  # of which it does not know
    assert run(triple)
    assert len(files(second, "nbc")) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_where_nothing_can_be_written_one_warning_says_so(folders, monkeypatch, caplog, number) -> None:
    make_read_only(monkeypatch, number, *folders)
    assert not run()
    assert not run(triple)
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "NUMBA_CACHE_DIR" in warning.message
    assert "first" in warning.message


def test_a_place_that_is_a_file(folders, tmp_path) -> None:
    (tmp_path / "first").write_text("")
    assert not run()
    assert run()
    assert len(files(folders[1], "nbc")) == 1


def test_a_change_in_any_source_compiles_anew(folders, monkeypatch) -> None:
    first, _ = folders
    run()
    monkeypatch.setattr(module, "sources", lambda: bytes(32))
    assert not run()
    assert run()
    assert len(files(first, "nbc")) == 1  # left as it was: another version's


def test_without_sources_nothing_is_kept(folders, monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "sources", lambda: b"")
    assert not run()
    assert not run()
    assert not folders[0].exists()


def test_compiling_is_said_once(folders, caplog) -> None:
    caplog.set_level(logging.INFO, "errseg_rt")
    run()
    run(triple)
    assert [record.message for record in caplog.records if record.levelno == logging.INFO] == [
        "compiling kernels for this processor; that takes a minute or less, and is kept"
    ]
    caplog.clear()
    module._say_once.cache_clear()
    run()
    assert caplog.records == []


def test_where_kernels_are_looked_for(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(module.config, "CACHE_DIR", str(tmp_path))
    named, beside, user = module.roots()
    assert named.path == tmp_path
    assert beside.folder(Path("/package/kernels/select/cpu.py")) == Path("/package/kernels/select/__pycache__")
    assert user.path.name.lower() == "numba" or "numba" in str(user.path).lower()
    monkeypatch.setattr(module.config, "CACHE_DIR", "")
    assert module.roots() == [beside, user]


def test_the_state_of_a_place(tmp_path) -> None:
    root = Root(tmp_path / "cache", False)
    assert root.state() == "0 kernels kept, can be written"
    folder = root.folder(Path(module.__file__).parent / "select" / "cpu.py")
    folder.mkdir(parents=True)
    (folder / "cpu.f-1.py311.1.nbc").write_bytes(b"")
    assert (
        root.state()
        == "1 kernels kept, 1 of them damaged or not to be read, and compiled anew when they are wanted, can be written"
    )
    (tmp_path / "file").write_text("")
    assert Root(tmp_path / "file" / "below", False).state() == "0 kernels kept, cannot be written"
