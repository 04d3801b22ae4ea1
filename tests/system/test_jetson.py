"""Jetson boards by their release file, and what a Python there wants."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from errseg_rt.system import jetson
from errseg_rt.system.jetson import Jetson, find_jetson

ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"


@pytest.mark.parametrize(
    ("text", "linux", "words"),
    [
        (ORIN, (36, 4, 3), "Jetson Linux 36.4.3 (JetPack 6)"),
        (ORIN.replace("4.3", "4"), (36, 4), "Jetson Linux 36.4 (JetPack 6)"),
        (ORIN.replace("4.3", "3.0"), (36, 3, 0), "Jetson Linux 36.3.0 (before JetPack 6.1)"),
        (ORIN.replace("R36", "R38"), (38, 4, 3), "Jetson Linux 38.4.3 (JetPack 7)"),
        (ORIN.replace("R36", "R39"), (39, 4, 3), "Jetson Linux 39.4.3 (JetPack 7)"),
        (ORIN.replace("R36", "R35"), (35, 4, 3), "Jetson Linux 35.4.3 (before JetPack 6.1)"),
    ],
)
def test_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text, linux, words) -> None:
    (tmp_path / "release").write_text(text)
    monkeypatch.setattr(jetson, "_RELEASE", tmp_path / "release")
    found = find_jetson()
    assert found == Jetson(linux)
    assert str(found) == words


@pytest.mark.parametrize("text", [None, "", "R36", "of another machine\n"])
def test_no_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text) -> None:
    if text is not None:
        (tmp_path / "release").write_text(text)
    monkeypatch.setattr(jetson, "_RELEASE", tmp_path / "release")
    assert find_jetson() is None


@pytest.mark.parametrize(
    ("linux", "python", "sees", "words"),
    [
        ((36, 4, 3), (3, 10), False, r"system's Python, .* does not see: python3 -m venv --system-site-packages"),
        ((36, 4, 3), (3, 10), True, r"^TensorRT is there; beside it pip install 'errseg-rt\[build\]' .*cu12"),
        ((36, 4, 3), (3, 12), False, r"^TensorRT lies in the system's Python 3\.10: make the environment of that; "),
        ((38, 2), (3, 12), False, r"--system-site-packages.*cuda-core\[cu13\]"),
        ((38, 2), (3, 11), False, r"system's Python 3\.12: "),
        ((36, 3), (3, 10), True, r"^its TensorRT is older than 10: flash JetPack 6\.1"),
    ],
)  # fmt: skip
def test_what_a_python_there_wants(monkeypatch: pytest.MonkeyPatch, linux, python, sees, words) -> None:
    monkeypatch.setattr(sys, "version_info", (*python, 0))
    monkeypatch.setattr(jetson, "find_spec", lambda name: object() if sees else None)
    assert re.search(words, Jetson(linux).advice())
