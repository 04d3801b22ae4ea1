"""Two folders change places, or nothing happens."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from errseg_rt.system.exchange import exchange


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with umlauts in their names, each with a file."""
    found = tmp_path / "är", tmp_path / "ör"
    for folder in found:
        folder.mkdir()
        (folder / "file").write_text(folder.name, encoding="utf-8")
    return found


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the system has no call for it")
def test_they_change_places(folders: tuple[Path, Path]) -> None:
    one, other = folders
    assert exchange(one, other)
    assert [(folder / "file").read_text(encoding="utf-8") for folder in folders] == [other.name, one.name]


def test_where_one_is_missing_nothing_happens(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert not exchange(folders[0], tmp_path / "missing")
    assert (folders[0] / "file").read_text(encoding="utf-8") == folders[0].name


@pytest.mark.parametrize("fault", [OSError, TypeError, AttributeError])
def test_where_the_system_has_no_call(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, fault) -> None:
    def refuse(_name: object) -> None:
        raise fault("none here")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not exchange(*folders)
