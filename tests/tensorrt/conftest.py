"""TensorRT's bindings without its libraries, and a fake in its place.

`ERRSEG_TENSORRT` is a folder with the wheels `tensorrt_cu13_bindings`, each installed without dependencies into a
folder that is named after its version. `ERRSEG_REQUIRE_TENSORRT=1` fails where they are missing, instead of skipping.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from errseg_rt.bundle.bundle import write_bundle
from errseg_rt.bundle.manifest import Manifest

HERE = Path(__file__).parent
VERSIONS = ("10.16.1.11", "11.4.0.106")

# What the bindings ask of the libraries when they are loaded; nothing of it is called by looking at classes.
STUB = "".join(
    f"void *{name}(void) {{ return 0; }}\n"
    for name in (
        "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
        "getNvOnnxParserVersion", "getPluginRegistry", "getInferLibVersion", "initLibNvInferPlugins",
    )
)  # fmt: skip
LIBRARIES = ("libnvinfer.so", "libnvinfer_plugin.so", "libnvonnxparser.so")


class Bindings:
    """One version of the bindings; scripts run in a process of their own, where the stubs can be loaded."""

    def __init__(self, folder: Path, libraries: Path) -> None:
        self._environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries),
            "PYTHONPATH": os.pathsep.join([str(libraries), str(folder)]),
        }

    def run(self, script: str, *arguments: str) -> Any:
        """What a script prints as JSON."""
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


def missing(reason: str) -> None:
    if os.environ.get("ERRSEG_REQUIRE_TENSORRT") == "1":
        pytest.fail(f"ERRSEG_REQUIRE_TENSORRT=1 promises TensorRT's bindings: {reason}", pytrace=False)
    pytest.skip(f"needs TensorRT's bindings: {reason}")


@pytest.fixture(scope="session", params=VERSIONS)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    root = os.environ.get("ERRSEG_TENSORRT")
    if not root:
        missing("the environment variable ERRSEG_TENSORRT is not set")
    folder = Path(root) / request.param
    if not (folder / "tensorrt_bindings").is_dir():
        missing(f"{folder} holds none for this Python")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        missing("no C compiler on Linux")
    libraries = tmp_path_factory.mktemp("stubs")
    (libraries / "stub.c").write_text(STUB)
    for name in LIBRARIES:
        target = libraries / f"{name}.{request.param.partition('.')[0]}"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", target, libraries / "stub.c"], check=True, timeout=60)
    (libraries / "tensorrt.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    return Bindings(folder, libraries)


def load_fake() -> ModuleType:
    # A fresh one each time: it keeps what it was told to do.
    spec = importlib.util.spec_from_file_location("fake_tensorrt", HERE / "fake_tensorrt.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A fake of TensorRT and of the driver: for control flow, never for results."""
    module = load_fake()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr("errseg_rt.places.driver._driver", module.Driver)
    # What is launched is found out, and not compiled, which takes seconds: tests/export/test_cubins.py does that.
    monkeypatch.setattr("errseg_rt.export.engines.kernels.compile_launch", module.compile_launch)
    return module


def tiny_graphs() -> dict[str, bytes]:
    """Graphs with the inputs and outputs of a cascade's, of one layer each."""
    sides = [("image", 3, "H", "W")]
    taps = {"logits": (11, 4), "error_logit": (1, 4), "low": (8, 4), "coarse": (5, 8)}
    nodes, weights, outputs = [], [], []
    for name, (channels, stride) in taps.items():
        weights.append(helper.make_tensor(f"{name}.w", TensorProto.FLOAT, (channels, 3, 1, 1), [0.1] * 3 * channels))
        nodes.append(helper.make_node("Conv", ["image", f"{name}.w"], [name], f"{name}.conv", strides=[stride, stride]))
        outputs.append(value(name, channels, "h", "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", ["coarse"], ["gate"], "gate.mean"),
    ]
    outputs.append(value("gate", 5, 1, 1))
    front = helper.make_graph(nodes, "front", [value(*each) for each in sides], outputs, weights)
    inputs = [
        value("logits", 11, "h", "w"),
        value("low", 8, "h", "w"),
        value("coarse", 5, "h", "w"),
        value("gate", 5, 1, 1),
    ]
    weight = helper.make_tensor("w", TensorProto.FLOAT, (11, 8, 1, 1), [0.1] * 88)
    stage3 = [
        helper.make_node("Conv", ["low", "w"], ["learned"], "head"),
        helper.make_node("Add", ["logits", "learned"], ["sum"], "sum"),
        helper.make_node("ReduceMean", ["coarse"], ["coarse.mean"], "coarse.mean", keepdims=1),
        helper.make_node("ReduceMean", ["gate"], ["gate.mean"], "gate.mean", keepdims=1),
        helper.make_node("Mul", ["coarse.mean", "gate.mean"], ["scale"], "scale"),
        helper.make_node("Mul", ["sum", "scale"], ["detail_logits"], "detail"),
    ]
    refine = helper.make_graph(stage3, "refine", inputs, [value("detail_logits", 11, "h", "w")], [weight])
    made = {"front": front, "refine": refine}
    models = {
        name: helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        for name, graph in made.items()
    }
    for model in models.values():
        onnx.checker.check_model(model)
    return {name: model.SerializeToString() for name, model in models.items()}


def value(name: str, channels: int, height: str | int, width: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, channels, height, width))


@pytest.fixture
def graph_bundle(manifest: Manifest, tmp_path: Path) -> Path:
    """A bundle whose graphs are tiny; it has no weights that anything could be refined with."""
    files = {f"graphs/{name}.onnx": data for name, data in tiny_graphs().items()}
    return write_bundle(tmp_path / "graphs", manifest, {**files, "weights.safetensors": b""}).folder
