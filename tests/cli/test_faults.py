"""What is broken around the command: dependencies that do not load, streams that take no letter, files cut short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.cli import app
from errseg_rt.cli.faults import said

BROKEN = """
import importlib.abc, sys
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise {error}("libGL.so.1: cannot open shared object file")
sys.meta_path.insert(0, Broken())
from errseg_rt.cli.app import main
main(sys.argv[1:])
"""
DEPENDENCIES = ("numpy", "cv2", "numba", "onnxruntime", "scipy", "av", "sklearn", "safetensors", "torch", "onnx")


def run(*command: str, modules: tuple[str, ...] = (), error: str = "ImportError") -> subprocess.CompletedProcess[str]:
    """`errseg-rt` in a process where some modules cannot be loaded."""
    code = BROKEN.format(modules=modules, error=error)
    return subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("command", ["--version", "--help"])
def test_without_any_dependency_it_says_what_it_is(command: str) -> None:
    done = run(command, modules=DEPENDENCIES)
    assert (done.returncode, done.stderr) == (0, "")
    assert "errseg-rt" in done.stdout or "build-engine" in done.stdout


def test_without_any_dependency_doctor_says_what_is_wrong() -> None:
    done = run("doctor", "--json", modules=DEPENDENCIES)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["engines"]["onnxruntime"].startswith("numpy cannot be loaded (libGL.so.1")
    assert report["opencv"].startswith("cv2 cannot be loaded (libGL.so.1")
    assert "pip install --force-reinstall opencv-python-headless" in report["opencv"]
    assert "libGL.so.1" in report["kernels"]
    assert "numpy cannot be loaded" in report["bundles"]
    done = run("doctor", modules=DEPENDENCIES)
    assert (done.returncode, done.stderr) == (0, "")
    assert "numba cannot be loaded" in done.stdout


@pytest.mark.parametrize(
    ("module", "error", "command"),
    [
        ("cv2", "ImportError", ("segment", "a.png", "-o", "out")),
        ("cv2", "OSError", ("demo", "-o", "out")),
        ("numba", "ValueError", ("segment", "a.png", "-o", "out")),
        ("onnxruntime", "OSError", ("segment", "a.png", "-o", "out")),
        ("av", "ImportError", ("demo", "-o", "out")),
        ("scipy", "OSError", ("evaluate", "camvid", "--data", "data")),
        ("numpy", "ImportError", ("inspect",)),
        ("onnx", "OSError", ("build-engine", "camvid", "--engine", "onnxruntime", "--out", "out")),
    ],
)
def test_a_command_names_the_dependency_that_does_not_load(tmp_path: Path, monkeypatch, module, error, command) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    (tmp_path / "a.png").write_bytes(b"")
    done = run(*command, modules=(module,), error=error)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert module in line
    assert "pip install" in line


@pytest.mark.parametrize(
    ("libraries", "command", "named"),
    [
        ({"numba": "import scipy", "scipy": "raise OSError('libblas.so: no such file')"}, ("demo",), "scipy"),
        ({"cv2": "import numpy", "numpy": "raise ModuleNotFoundError('none', name='numpy')"}, ("demo",), "numpy"),
        ({"PIL": "raise ImportError('libjpeg.so: no such file')"}, ("evaluate", "camvid", "--data", "."), "pillow"),
        ({"rich": "raise ModuleNotFoundError('none', name='rich.x')"}, ("--help",), "rich"),
    ],
    ids=lambda value: None if isinstance(value, tuple) else " ".join(value) if isinstance(value, dict) else value,
)
def test_what_another_dependency_wants_is_named(tmp_path: Path, libraries, command, named) -> None:
    for name, source in libraries.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source, encoding="utf-8")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    code = "import sys; sys.path.insert(0, '.'); from errseg_rt.cli.app import main; main(sys.argv[1:])"
    for folder in ("images", "labels"):
        (tmp_path / folder / "a.png").write_bytes(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    if named == "rich" and done.returncode == 0:  # older versions of typer show help without it
        assert "Usage: " in done.stdout
        return
    assert done.returncode == 2
    assert f"pip install --force-reinstall {named};" in done.stderr


def test_a_library_that_cannot_be_mapped_is_not_installed_again() -> None:
    line = said(ModuleNotFoundError("libx.so: failed to map segment from shared object", name="x.core"))
    assert line is not None
    assert line.startswith("x cannot be loaded (libx.so: failed to map segment from shared object): memory is short")
    assert "pip" not in line


def test_other_commands_work_without_it() -> None:
    assert run("inspect", "--json", modules=("cv2", "numba", "onnxruntime", "av", "scipy")).returncode == 0


def test_nothing_is_loaded_to_say_that_memory_is_short() -> None:
    code = """
import sys
from errseg_rt.cli import app
before = set(sys.modules)
def fail(*_): raise MemoryError
app.app = fail
try:
    app.main([])
except SystemExit as end:
    print(end.code, *(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "2\n"
    assert done.stderr.startswith("error: out of memory; ")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(KeyError) as raised:
        raise KeyError("ours")
    assert said(raised.value) is None


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 9 GiB")])
def test_short_memory_is_one_line(cli, monkeypatch, error) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Bundle, "open", fail)
    done = cli("inspect")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: out of memory")
    assert str(error) in done.err
    assert done.err.endswith("bound frames by work_pixels\n")


@pytest.mark.parametrize(("error", "code"), [(EOFError("Ran out of input"), 2), (KeyboardInterrupt(), 130)])
def test_a_file_that_ends_early_is_no_interruption(cli, monkeypatch, tmp_path, error, code) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Bundle, "open", fail)
    done = cli("inspect")
    assert (done.code, done.out) == (code, "")
    message = "error: a file ended too early (Ran out of input); copy or make it again\n"
    assert done.err == ("" if code == 130 else message)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "cp437"])
@pytest.mark.parametrize("command", [("inspect",), ("--help",), ("inspect", "no-such-\udcff-ü-▌")])
def test_no_letter_is_too_much_for_a_stream(encoding: str, command: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    code = f"from errseg_rt.cli.app import main; main({command!r})"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120, check=False)
    assert b"Traceback" not in done.stderr
    assert done.returncode == (2 if len(command) == 2 else 0)
    if done.returncode:
        assert done.stderr.decode(encoding).startswith("error: bundle no-such-\\udcff-")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("state", ["None", "closed"])
def test_streams_that_are_not_there(stream: str, state: str) -> None:
    close = f"sys.{stream} = None" if state == "None" else f"sys.{stream}.close()"
    code = f"import sys; {close}\nfrom errseg_rt.cli.app import main\nmain(['inspect', 'no-such-bundle'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_the_help_says_is_what_the_commands_say() -> None:
    from importlib import import_module

    for name, text in app.COMMANDS.items():
        file = name.replace("-", "_")
        command: Any = getattr(import_module(f"errseg_rt.cli.{file}"), file)
        assert " ".join(command.__doc__.split("\n\n")[0].split()) == text
    assert {each.name for each in app.app.registered_commands} == set(app.COMMANDS)


def test_only_what_is_called_is_imported() -> None:
    code = (
        "import sys; from errseg_rt.cli.app import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted(name for name in sys.modules if name.startswith('errseg_rt.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == str(
        [
            "errseg_rt.cli",
            "errseg_rt.cli.app",
            "errseg_rt.cli.faults",
            "errseg_rt.errors",
            "errseg_rt.system",
            "errseg_rt.system.lazy",
            "errseg_rt.system.lines",
            "errseg_rt.system.shortage",
        ]
    )


@pytest.mark.parametrize("module", ["typer", "numpy", "errseg_rt.cli.segment", "errseg_rt.runtime"])
def test_ctrl_c_while_modules_are_imported(module: str) -> None:
    code = f"""
import importlib.abc, sys
class Stopped(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stopped())
from errseg_rt.cli import main
main()
"""
    command = [sys.executable, "-c", code, "segment", "a.png", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")
