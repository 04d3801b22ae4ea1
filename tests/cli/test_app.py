"""`errseg-rt` itself, without a sub-command."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import cv2
import pytest


def test_version(cli) -> None:
    done = cli("--version")
    assert (done.code, done.out, done.err) == (0, f"errseg-rt {metadata.version('errseg-rt')}\n", "")


def test_version_comes_before_all_else(cli) -> None:
    done = cli("--version", "no-such-command")
    assert (done.code, done.out) == (0, f"errseg-rt {metadata.version('errseg-rt')}\n")


def test_version_loads_no_runtime() -> None:
    script = (
        "import sys; from errseg_rt.cli.app import main\n"
        "try: main(['--version'])\n"
        "finally: print(sorted({'torch', 'onnxruntime', 'errseg_rt.runtime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["[]"]


@pytest.mark.parametrize("arguments", [("--help",), ()], ids=["help", "nothing"])
def test_help_names_the_commands(cli, arguments) -> None:
    done = cli(*arguments)
    for word in ("--version", "segment", "demo", "evaluate", "calibrate", "build-engine", "Segment frames, know where"):
        assert word in done.out


@pytest.mark.parametrize(("arguments", "message"), [(("--nonsense",), "--nonsense"), (("nonsense",), "nonsense")])
def test_what_there_is_not(cli, arguments, message) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("segment", "", "-o", "out"), "an empty argument;"),
        (("segment", "a.png", "-o", ""), "an empty argument for -o;"),
        (("segment", "a.png", "-o", "out", "--labels="), "an empty argument for --labels;"),
        (("evaluate", "camvid", "--data", ""), "an empty argument for --data;"),
    ],
)
def test_an_empty_argument_is_not_the_working_folder(cli, tmp_path, monkeypatch, frame, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", frame)
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {message} if it comes from a variable, that is not set\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_what_is_set_may_be_empty(cli, tmp_path) -> None:
    assert "an empty argument" not in cli("train", "camvid", "--set=data.classes=", "-o", tmp_path / "out").err
