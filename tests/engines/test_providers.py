"""Execution providers that this machine lacks: in their stead, an onnxruntime that says it has them."""

from __future__ import annotations

import platform
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines import providers
from errseg_rt.engines.fitting import key_here
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.errors import EngineError
from errseg_rt.options import Options
from errseg_rt.runtime import Runtime
from errseg_rt.system.stamp import ONNXRUNTIMES, machine_stamp

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO, DML, COREML = "OpenVINOExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider"


@pytest.fixture
def graph() -> bytes:
    return Bundle.open("camvid").read("graphs/front.onnx")


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch):
    """Sets the providers that onnxruntime says it has, those that can start, and the package that it came by."""

    def set_up(available: list[str], starting: list[str], package: str = "onnxruntime") -> list[dict[str, Any]]:
        session, made = onnxruntime.InferenceSession, []

        class Session:
            """One that leaves out what cannot start, without a word, as onnxruntime does."""

            def __init__(self, graph: bytes, options: Any, providers: Any, **how: Any) -> None:
                made.append(how)
                self._own = session(graph, options, providers=[CPU], **how)
                names = [each if isinstance(each, str) else each[0] for each in providers]
                self._kept = [name for name in dict.fromkeys([*names, CPU]) if name in starting]

            def get_providers(self) -> list[str]:
                return self._kept

            def __getattr__(self, name: str) -> Any:
                return getattr(self._own, name)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
        monkeypatch.setattr(providers, "version_of", lambda name: "1.2.3" if name == package else None)
        return made

    return set_up


@pytest.mark.parametrize(
    ("name", "package"),
    [(CUDA, "onnxruntime-gpu"), (TENSORRT, "onnxruntime-gpu"), (OPENVINO, "onnxruntime-openvino")],
)
def test_one_that_is_not_there_names_the_package_that_brings_it(graph: bytes, has, name: str, package: str) -> None:
    has([CPU], [CPU])
    for given in (name, (name, {"device_id": 0})):
        with pytest.raises(EngineError) as fault:
            OnnxRuntimeEngine(graph, "front", providers=[given])
        assert str(fault.value) == (
            f"onnxruntime has no {name} here (it has {CPU}); pip uninstall -y onnxruntime, which lies in the same "
            f"folder, then pip install {package}"
        )


def test_the_package_that_has_to_go_is_the_one_that_is_installed(graph: bytes, has) -> None:
    has([OPENVINO, CPU], [OPENVINO, CPU], "onnxruntime-openvino")
    with pytest.raises(EngineError, match=r"pip uninstall -y onnxruntime-openvino, .* pip install onnxruntime-gpu$"):
        OnnxRuntimeEngine(graph, "front", providers=[CUDA])


@pytest.mark.parametrize(
    ("name", "system", "remedy"),
    [
        (DML, "Linux", "DmlExecutionProvider is for Windows"),
        (DML, "Windows", "pip uninstall -y onnxruntime, .* pip install onnxruntime-directml"),
        (COREML, "Linux", "CoreMLExecutionProvider is for macOS"),
        (COREML, "Darwin", "choose among these, or install"),
        ("NoSuchProvider", "Linux", "choose among these, or install"),
    ],
)
def test_one_of_another_system(graph: bytes, has, monkeypatch, name: str, system: str, remedy: str) -> None:
    has([CPU], [CPU])
    monkeypatch.setattr(platform, "system", lambda: system)
    with pytest.raises(EngineError, match=rf"has no {name} here \(it has CPUExecutionProvider\); {remedy}"):
        OnnxRuntimeEngine(graph, "front", providers=[name])


@pytest.mark.parametrize("listed", [[CUDA], [CUDA, CPU], [(CUDA, {"device_id": 1})]], ids=str)
def test_one_that_onnxruntime_drops_is_refused(graph: bytes, has, listed) -> None:
    """It would run the graph on the CPU, and say nothing."""
    has([CUDA, CPU], [CPU], "onnxruntime-gpu")
    with pytest.raises(
        EngineError, match=f"^{CUDA} cannot start here, and the front graph would run on {CPU}; .*cudnn"
    ):
        OnnxRuntimeEngine(graph, "front", providers=listed)
    with pytest.raises(EngineError, match="cannot start here"):
        Runtime(providers=listed)


def test_one_of_several_that_is_dropped_is_refused(graph: bytes, has) -> None:
    has([TENSORRT, CUDA, CPU], [CUDA, CPU], "onnxruntime-gpu")
    with pytest.raises(EngineError, match=f"^{TENSORRT} cannot start here, .* would run on {CUDA}, {CPU}; it wants"):
        OnnxRuntimeEngine(graph, "front", providers=[TENSORRT, CUDA])


def test_what_runs_is_said_and_nothing_falls_back(has) -> None:
    made = has([OPENVINO, CPU], [OPENVINO, CPU])
    with Runtime(providers=[OPENVINO]) as runtime:
        assert runtime.providers == (OPENVINO, CPU)
    assert [how["enable_fallback"] for how in made] == [0, 0], "onnxruntime would print, and take the CPU"


def test_a_session_that_cannot_be_made_is_one_line(graph: bytes, has, monkeypatch: pytest.MonkeyPatch) -> None:
    has([OPENVINO, CPU], [OPENVINO, CPU])

    def fails(*given: Any, **how: Any) -> None:
        raise RuntimeError("Invalid OpenVINO EP option: nonsense\n\tin ParseOptions")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(EngineError) as fault:
        OnnxRuntimeEngine(graph, "front", providers=[(OPENVINO, {"nonsense": "1"})])
    assert str(fault.value) == (
        f"onnxruntime cannot load the front graph on {OPENVINO} (Invalid OpenVINO EP option: nonsense in "
        "ParseOptions); leave providers out, or change their options"
    )


@pytest.mark.parametrize(("name", "loads"), [(CUDA, True), (TENSORRT, True), (OPENVINO, False), (CPU, False)])
def test_cudas_libraries_are_loaded_from_where_pip_put_them(
    graph: bytes, has, monkeypatch, capsys, name, loads
) -> None:
    has([TENSORRT, CUDA, OPENVINO, CPU], [TENSORRT, CUDA, OPENVINO, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("no cudnn there"), raising=False)
    OnnxRuntimeEngine(graph, "front", providers=[name])
    heard = capsys.readouterr()
    assert heard.out == "", "a report is printed there"
    assert (heard.err == "no cudnn there\n") == loads


@pytest.mark.parametrize(
    "given",
    [
        [],
        (),
        OPENVINO,
        [""],
        [OPENVINO, {"device_type": "CPU"}],
        [(OPENVINO,)],
        [(OPENVINO, "CPU")],
        [None],
        3,
        {CPU},
        [CPU, CPU],
    ],
    ids=str,
)
def test_lists_that_are_none(given) -> None:
    with pytest.raises(ValueError, match=r"^providers must be a list of names, .*, got "):
        Options(providers=given)


@pytest.mark.parametrize("given", [None, [CPU], (CPU,), [(CPU, {"use_arena": "0"}), OPENVINO]], ids=str)
def test_lists(given) -> None:
    assert Options(providers=given).providers == given


def test_on_the_command_line(cli, tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    done = cli("segment", tmp_path, "-o", tmp_path / "out", "--providers", "")
    assert done.code == 2
    assert done.err.startswith("error: an empty argument for --providers")
    done = cli("segment", tmp_path, "-o", tmp_path / "out", "--providers", ",")
    assert done.code == 2
    assert "Invalid value for '--providers': providers must be a list of names" in done.err
    done = cli("segment", tmp_path, "-o", tmp_path / "out", "--providers", f"{CPU}, NoSuchProvider")
    assert done.code == 2
    assert "onnxruntime has no NoSuchProvider here" in done.err


def test_another_package_of_onnxruntime_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module has the version, whatever the package is called."""

    def version(name: str) -> str:
        if name == "onnxruntime-openvino":
            return "1.24.1"
        raise importlib_metadata.PackageNotFoundError(name)

    from importlib import metadata as importlib_metadata

    monkeypatch.setattr(importlib_metadata, "version", version)
    assert key_here(Bundle.open("camvid"), "onnxruntime", "int8").version == onnxruntime.__version__
    packages = machine_stamp(None)["packages"]
    assert {name: packages.get(name) for name in ONNXRUNTIMES if packages.get(name)} == {
        "onnxruntime-openvino": "1.24.1"
    }
