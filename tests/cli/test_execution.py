"""`--engine`, `--precision` and `--device`: what the runtime is opened with, what the reports say, and mistakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.cli.execution import open_runtime
from errseg_rt.cli.execution import stamp as stamp_of
from errseg_rt.engines.fitting import key_here
from errseg_rt.errors import EngineError
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene

COMMANDS = ("segment", "demo", "evaluate", "calibrate")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Labelled frames of two sizes."""
    folder = tmp_path_factory.mktemp("street")
    for name, (height, width) in {"a": (64, 96), "b": (57, 75)}.items():
        rendered = StreetScene(11, height, width).frame(0)
        for part, picture in (("images", rendered.frame), ("labels", rendered.labels)):
            (folder / part).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / part / f"{name}.png"), picture)
    return folder


@pytest.fixture
def run(cli, data: Path, tmp_path: Path) -> Callable[..., tuple[Any, dict[str, Any] | None]]:
    """Runs a sub-command on small frames: what it left, and its report."""

    def run(command: str, *options: str, bundle: str | Path = "camvid"):
        out, report = tmp_path / "out", tmp_path / f"{command}.json"
        if command == "segment":
            arguments, report = (data / "images", "-o", out, "--bundle", bundle), out / "summary.json"
        elif command == "demo":
            size = ("--frames", "1", "--height", "64", "--width", "96")
            arguments, report = ("-o", out, "--bundle", bundle, *size), out / "summary.json"
        else:
            arguments = (bundle, "--data", data, "--json", report)
        done = cli(command, *arguments, *options)
        return done, json.loads(report.read_text()) if report.exists() else None

    return run


class Gpu:
    """In the stead of a GPU: the CPU, that takes no size but those of the frames, as a built engine may."""

    opened: list[dict[str, Any]]
    refuses: Exception | None

    def __init__(self, bundle: Bundle, engine: str, **options: Any) -> None:
        self.opened.append({"bundle": bundle.manifest.name, "engine": engine, **options})
        if self.refuses:
            raise self.refuses
        self._runtime = Runtime(bundle, threads=1, detail=options["detail"])
        self.detail, self.row_work = self._runtime.detail, self._runtime.row_work
        self.branches = lambda frame, color, scale: self._runtime.branches(frame, color=color, scale=scale)

    def submit(self, frame: np.ndarray, color: str, confidence: bool, semantic: bool) -> Any:
        return self._runtime.submit(frame, color=color, confidence=confidence, semantic=semantic)

    def warm_up(self, size: tuple[int, int]) -> None:
        raise EngineError(f"nothing was built for frames of {size}")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type[Gpu]:
    """Keeps what each runtime on a GPU was opened with."""
    made = type("Gpu", (Gpu,), {"opened": [], "refuses": None})
    monkeypatch.setitem(sys.modules, "errseg_rt.pipeline.device_runtime", SimpleNamespace(DeviceRuntime=made))
    return made


def stamp(report: dict[str, Any] | None) -> tuple[str, str, str]:
    assert report
    return report["engine"], report["precision"], report["device"]


@pytest.mark.parametrize("command", COMMANDS)
def test_reports_say_what_the_runtime_chose(run, command) -> None:
    done, report = run(command, "--threads", "1")
    assert (done.code, done.err) == (0, "")
    assert stamp(report) == ("onnxruntime", "fp32", "cpu")


@pytest.mark.parametrize("command", COMMANDS)
def test_on_a_gpu(run, gpu, command) -> None:
    done, report = run(command, "--engine", "torch", "--device", "cuda:1", "--precision", "bf16")
    assert (done.code, done.err) == (0, "")
    (options,) = gpu.opened
    assert (options["engine"], options["device"], options["precision"]) == ("torch", "cuda:1", "bf16")
    assert stamp(report) == ("torch", "bf16", "cuda:1")
    assert not report.get("failed")


@pytest.mark.parametrize(
    ("engine", "device"), [("tensorrt", None), ("tensorrt", "cuda:1"), ("torch", "cuda"), ("torch", "cuda:0")]
)
@pytest.mark.parametrize("precision", [None, *PRECISIONS])
def test_the_stamp_is_what_a_runtime_on_a_gpu_is_opened_with(gpu, engine, precision, device) -> None:
    with open_runtime("camvid", engine, precision, device) as runtime:
        (options,) = gpu.opened
        found = stamp_of(runtime)
    assert found == {name: options[name] for name in ("engine", "precision", "device")}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_precision_that_was_built(run, bundle_copy: Path, command) -> None:
    bundle = Bundle.open(bundle_copy)
    front = bundle.read("graphs/front.onnx")
    bundle.engines.put(key_here(bundle, "onnxruntime", "int8"), "any", {}, {"front.onnx": front})
    done, report = run(command, "--precision", "int8", "--threads", "1", bundle=bundle_copy)
    assert (done.code, done.err) == (0, "")
    assert stamp(report) == ("onnxruntime", "int8", "cpu")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--precision", "int8"), "no onnxruntime engine in int8 has been built; build it: errseg-rt build-engine"),
        (("--precision", "fp16"), "onnxruntime is not built in fp16: choose from int8"),
        (("--engine", "tensorrt"), ""),  # no GPU, no TensorRT, or no engine
    ],
    ids=["not_built", "never_built", "tensorrt"],
)
def test_what_is_not_built_is_one_line(run, command, options, message) -> None:
    done, report = run(command, *options)
    assert (done.code, done.out, report) == (2, "", None)
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("command", COMMANDS)
def test_no_gpu_is_one_line(run, monkeypatch, command) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done, report = run(command, "--engine", "torch", "--device", "cuda")
    assert (done.code, done.out, report) == (2, "", None)
    (line,) = done.err.splitlines()
    assert line.startswith("error: torch")
    assert "finds no NVIDIA GPU here" in line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "options",
    [
        ("--precision", "fp8"),
        ("--precision", ""),
        ("--device", "gpu"),
        ("--device", "cuda:"),
        ("--device", "cuda:x"),
        ("--device", "cuda:-1"),
        ("--device", "cpu:0"),
        ("--device", ""),
    ],
    ids=" ".join,
)
def test_values_that_are_none(run, command, options) -> None:
    done, report = run(command, *options)
    assert (done.code, report) == (2, None)
    (line,) = (line for line in done.err.splitlines() if "Invalid value" in line)
    assert options[0] in line
    assert repr(options[1]) in line


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("segment", ("--threads", "1"), "threads is for the CPU, got device = 'cuda' and threads = 1"),
        ("demo", ("--deadline-ms", "9"), "deadline_ms is for the CPU, got device = 'cuda' and deadline_ms = 9.0"),
        ("evaluate", ("--threads", "3"), "threads is for the CPU, got device = 'cuda' and threads = 3"),
        ("calibrate", ("--threads", "3"), "threads is for the CPU, got device = 'cuda' and threads = 3"),
    ],
)
def test_what_a_gpu_does_not_take(run, gpu, command, options, message) -> None:
    done, report = run(command, "--engine", "torch", "--device", "cuda", *options)
    assert (done.code, done.out, report, gpu.opened) == (2, "", None, [])
    assert "Traceback" not in done.err
    (line,) = (line for line in done.err.splitlines() if "Invalid value" in line)
    assert message in line


def test_a_precision_that_an_engine_has_not_on_a_gpu(run, gpu) -> None:
    gpu.refuses = ValueError("precision must be one of fp32, fp16, bf16, got 'int8'")
    done, report = run("segment", "--engine", "torch", "--device", "cuda", "--precision", "int8")
    assert (done.code, done.out, report) == (2, "", None)
    assert f"Invalid value: {gpu.refuses}" in done.err
