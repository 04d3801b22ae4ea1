"""`errseg-rt doctor`: what works here, and why others do not."""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import cv2
import pytest

from errseg_rt.bundle import bundle as bundle_module
from errseg_rt.cli.doctor import _cores, _opencv
from errseg_rt.cli.options import print_table
from errseg_rt.system.cores import Cores
from errseg_rt.system.jetson import Jetson


@pytest.fixture
def broken_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch were not installed; and no test but those of torch waits for it to load."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "errseg_rt.engines.torch", raising=False)


def test_json_says_what_is_installed(cli, broken_torch) -> None:
    done = cli("doctor", "--json")
    report = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert report["python"] == platform.python_version()
    assert set(report["cores"]) == {"usable", "machine", "affinity", "quota"}
    assert 1 <= report["cores"]["usable"] <= report["cores"]["affinity"] <= report["cores"]["machine"]
    assert isinstance(report["gpu"], str)
    assert "camvid" in report["bundles"]
    for name in ("errseg-rt", "numpy", "onnxruntime", "numba", "av"):
        assert report["packages"][name] == metadata.version(name)


def test_an_engine_that_is_missing_says_why(cli, broken_torch) -> None:
    engines = json.loads(cli("doctor", "--json").out)["engines"]
    assert engines["onnxruntime"] == "works"
    assert engines["torch"].startswith("engine torch is not installed")
    assert "pip install 'errseg-rt[torch]'" in engines["torch"]


def test_every_installed_engine_works(cli) -> None:
    engines = json.loads(cli("doctor", "--json").out)["engines"]
    for engine in ("onnxruntime", "torch"):
        is_there = all(importlib.util.find_spec(name) for name in (engine, *(["safetensors"] * (engine == "torch"))))
        assert (engines[engine] == "works") == is_there


def test_text_for_a_person(cli, broken_torch) -> None:
    done = cli("doctor")
    assert (done.code, done.err) == (0, "")
    for word in ("Machine", "Packages", "Engines", "onnxruntime", "works", "camvid", "errseg-rt"):
        assert word in done.out
    assert "engine torch is not installed" in done.out


@pytest.mark.parametrize(("quota", "words"), [(None, "no quota"), (1.5, "a quota of 1.5")])
def test_cores_in_words(quota: float | None, words: str) -> None:
    usable = 4 if quota is None else 2
    text = f"{usable} usable: 8 of the machine, 4 in the affinity mask, {words}"
    assert _cores(Cores(8, 4, quota)) == text


def test_execution_providers_are_shown(cli, broken_torch, monkeypatch) -> None:
    assert "CPUExecutionProvider" in json.loads(cli("doctor", "--json").out)["providers"]
    assert "CPUExecutionProvider" in cli("doctor").out
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert json.loads(cli("doctor", "--json").out)["providers"].startswith("onnxruntime cannot be loaded ")


def test_a_jetson_is_told_what_it_wants(cli, broken_torch, monkeypatch) -> None:
    assert json.loads(cli("doctor", "--json").out)["jetson"] is None
    assert "jetson" not in cli("doctor").out
    monkeypatch.setattr("errseg_rt.cli.doctor.find_jetson", lambda: Jetson((36, 4, 3)))
    said = json.loads(cli("doctor", "--json").out)["jetson"]
    assert said.startswith("Jetson Linux 36.4.3 (JetPack 6): TensorRT ")
    assert "cuda-core[cu12]" in said
    assert "Jetson Linux 36.4.3" in cli("doctor").out


def test_without_an_embedded_bundle_it_still_reports(cli, broken_torch, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bundle_module, "_ZOO", tmp_path)
    monkeypatch.chdir(tmp_path)
    report = json.loads(cli("doctor", "--json").out)
    assert report["bundles"] == []
    assert report["engines"]["onnxruntime"].startswith("bundle camvid: no manifest.json there")


def test_a_package_that_is_not_installed_has_no_version(cli, broken_torch, monkeypatch) -> None:
    version = metadata.version

    def without_tensorrt(name: str) -> str:
        if name == "tensorrt":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_tensorrt)
    assert json.loads(cli("doctor", "--json").out)["packages"]["tensorrt"] is None
    line, engine = (line for line in cli("doctor").out.splitlines() if " tensorrt " in line)
    assert "-" in line.split()
    assert "works" not in engine


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        ({"opencv-python": "5.0.0.93"}, " of opencv-python 5.0.0.93"),
        ({"opencv-python": "5", "opencv-python-headless": "4"}, "and opencv-python-headless 4, which overwrite"),
        ({"opencv-python-headless": None}, " of no package that pip knows"),
    ],
    ids=["one", "two", "none"],
)
def test_which_opencv_is_there(monkeypatch, installed, words) -> None:
    monkeypatch.setattr("errseg_rt.cli.doctor.opencv_versions", lambda: installed)
    assert _opencv().startswith(cv2.__version__)
    assert words in _opencv()


def test_where_kernels_are_kept(cli, broken_torch, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    kernels = json.loads(cli("doctor", "--json").out)["kernels"]
    assert kernels[0] == f"{tmp_path}: 0 kernels kept, can be written"
    assert all(re.search(r"\d+ kernels kept", line) for line in kernels)


def test_whatever_an_engine_raises_is_its_state(cli, broken_torch, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise AttributeError("module 'numba' has no attribute 'njit'")

    monkeypatch.setattr("errseg_rt.runtime.open_way", fail)
    done = cli("doctor", "--json")
    state = json.loads(done.out)["engines"]["onnxruntime"]
    assert (done.code, state) == (0, "AttributeError: module 'numba' has no attribute 'njit'")


def test_no_path_is_cut(capsys, monkeypatch) -> None:
    path = "/a/long/way" * 90
    print_table("Engines", ["engine", "state"], [["torch", path]])
    assert path in capsys.readouterr().out  # into a file, on one line
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    print_table("Engines", ["engine", "state"], [["torch", path]])
    shown = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) <= 60  # on a terminal, folded
    assert path in re.sub(r"\s*│\s*(torch)?|\s", "", shown)


def test_what_stands_in_brackets_is_shown(capsys) -> None:
    print_table("Engines", ["engine", "state"], [["torch", "pip install 'errseg-rt[torch]'"]])
    assert "pip install 'errseg-rt[torch]'" in capsys.readouterr().out
