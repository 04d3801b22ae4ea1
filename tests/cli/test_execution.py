"""Options of what runs a bundle: what the runtime is opened with, what the reports say, and mistakes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import onnxruntime
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.cli.execution import options_of
from errseg_rt.cli.execution import stamp as stamp_of
from errseg_rt.engines.fitting import key_here
from errseg_rt.errors import EngineError
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.options import Options
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.open import open_way
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene

COMMANDS = ("segment", "demo", "evaluate", "calibrate")
CPU_PROVIDER = ["CPUExecutionProvider"]


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


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """In the stead of any engine and GPU: the CPU, that prepares no frames. Keeps what was opened."""
    opened: list[Options] = []

    def open_here(bundle: Bundle, options: Options) -> Direct:
        opened.append(options)
        way = open_way(bundle, Options(threads=1, detail=options.detail))
        return Unprepared(way.pipeline) if options.kind == "gpu" else way

    monkeypatch.setattr("errseg_rt.runtime.open_way", open_here)
    return opened


class Unprepared(Direct):
    """A built engine may fit no size but those of the frames."""

    def prepare(self, size: tuple[int, int], limits: Any) -> None:
        raise EngineError(f"nothing was built for frames of {size}")


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
    done, report = run(command, "--engine", "torch", "--device", "cuda:1", "--precision", "bf16", "--compiled")
    assert (done.code, done.err) == (0, "")
    assert gpu == [Options("torch", "cuda:1", "bf16", compiled=True)]
    assert stamp(report) == ("torch", "bf16", "cuda:1")
    assert not report.get("failed")


@pytest.mark.parametrize(
    ("engine", "device"), [("tensorrt", None), ("tensorrt", "cuda:1"), ("torch", "cuda"), ("torch", "cuda:0")]
)
@pytest.mark.parametrize("precision", [None, "fp32", "fp16", "bf16"])
def test_the_stamp_is_what_a_runtime_on_a_gpu_is_opened_with(gpu, engine, precision, device) -> None:
    with Runtime(options=options_of(engine=engine, precision=precision, device=device)) as runtime:
        (options,) = gpu
        found = stamp_of(runtime)
    assert found == {"engine": engine, "precision": precision or "fp16", "device": device or "cuda"}
    assert options == Options(engine, device, precision)


ASKED = {
    "--engine": "onnxruntime", "--device": "cpu", "--precision": "fp32", "--threads": "3", "--max-pixels": "9999",
    "--work-pixels": "7777", "--providers": "CPUExecutionProvider",
}  # fmt: skip
LIMITS = {"--threshold": "0.625", "--detail": "sparse", "--budget": "0.375"}
NOT_ASKED = {
    "segment": set(),
    "demo": set(),
    "evaluate": {"detail", "budget", "deadline_ms"},  # it looks at all branches, densely
    "calibrate": {"detail", "budget", "deadline_ms", "threshold"},  # and every threshold
}


@pytest.mark.parametrize("command", COMMANDS)
def test_all_that_is_asked_for_is_handed_on(run, gpu, command) -> None:
    asked = ASKED | {name: value for name, value in LIMITS.items() if field_of(name) not in NOT_ASKED[command]}
    done, _ = run(command, *(word for pair in asked.items() for word in pair))
    assert (done.code, done.err) == (0, "")
    (options,) = gpu
    wanted = {field_of(name): value for name, value in asked.items()} | {"providers": ("CPUExecutionProvider",)}
    assert {name: str(getattr(options, name)) for name in wanted} == {name: str(v) for name, v in wanted.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_frames_over_the_limit_are_named(run, command) -> None:
    done, _ = run(command, "--threads", "1", "--max-pixels", "4300")
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert lines == [line for line in done.err.splitlines() if "over the limit of 4300; " in line]
    assert len(lines) == 1  # of two frames, one is smaller


@pytest.mark.parametrize("command", COMMANDS)
def test_there_is_an_option_for_every_option(command) -> None:
    callback = getattr(import_module(f"errseg_rt.cli.{command}"), command)
    # What is missing is built by a command of its own.
    wanted = {field.name for field in fields(Options)} - {"build"} - NOT_ASKED[command]
    assert wanted == set(inspect.signature(callback).parameters) & {field.name for field in fields(Options)}


def field_of(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


@pytest.mark.parametrize("command", COMMANDS)
def test_other_providers_are_in_the_report(run, monkeypatch, command) -> None:
    # What a session says that was given CUDA, on a machine that has it; the work is the CPU's.
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", *CPU_PROVIDER])
    session = onnxruntime.InferenceSession
    given = []

    def opened(graph: bytes, options: Any, providers: list[Any], **how: Any) -> Any:
        given.append(providers)
        made = session(graph, options, providers=CPU_PROVIDER, **how)
        made.get_providers = lambda: ["CUDAExecutionProvider", *CPU_PROVIDER]
        return made

    monkeypatch.setattr("onnxruntime.InferenceSession", opened)
    done, report = run(command, "--threads", "1", "--providers", "CUDAExecutionProvider,CPUExecutionProvider")
    assert (done.code, done.err) == (0, "")
    assert given == [["CUDAExecutionProvider", "CPUExecutionProvider"]] * 2
    assert report["providers"] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert report["device"] == "cpu"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_provider_that_is_not_there_is_one_line(run, command) -> None:
    done, report = run(command, "--providers", "NoSuchProvider")
    assert (done.code, done.out, report) == (2, "", None)
    (line,) = done.err.splitlines()
    assert line.startswith("error: onnxruntime has no NoSuchProvider here (it has ")


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_as_many_cores_as_the_process_may_use_are_used(run, monkeypatch, command) -> None:
    monkeypatch.setattr("errseg_rt.options.usable_cores", lambda: 3)
    found = []

    class Noted(Evaluation):
        def __init__(self, *arguments: Any, threads: int, **options: Any) -> None:
            found.append(threads)
            super().__init__(*arguments, threads=threads, **options)

    monkeypatch.setattr("errseg_rt.evaluation.evaluation.Evaluation", Noted)
    for options, wanted in (((), 3), (("--threads", "2"), 2)):
        done, _ = run(command, *options)
        assert (done.code, done.err) == (0, "")
        assert found.pop() == wanted


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
        (("--engine", "tensorrt"), ""),  # no GPU, no TensorRT, or no engine
    ],
    ids=["not_built", "tensorrt"],
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
        ("--engine", "tensorflow"),
        ("--precision", "fp8"),
        ("--precision", "fp16"),  # there is none on this device
        ("--device", "gpu"),
        ("--device", "cuda"),  # nor has this engine one
        ("--device", "cuda:"),
        ("--device", "cuda:x"),
        ("--device", "cuda:-1"),
        ("--device", "cpu:0"),
        ("--threads", 0),
        ("--max-pixels", 0),
        ("--work-pixels", -1),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_values_that_are_none(run, command, options) -> None:
    done, report = run(command, *map(str, options))
    assert (done.code, report) == (2, None)
    (line,) = (line for line in done.err.splitlines() if "Invalid value" in line)
    assert f"Invalid value for '{options[0]}': " in line
    assert f"got {options[1]!r}." in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--engine", "torch", "--device", "cuda", "--threads", "3"),
            "Invalid value for '--threads': threads are those of a CPU, got 3 for cuda; leave them out.",
        ),
        (
            ("--engine", "torch", "--device", "cuda", "--precision", "int8"),
            "Invalid value for '--precision': precision must be fp32, fp16 or bf16 with torch on a GPU, got 'int8'.",
        ),
        (
            ("--engine", "tensorrt", "--device", "cpu"),
            "Invalid value for '--device': device must fit the engine: tensorrt runs on a GPU, got 'cpu'.",
        ),
        (
            ("--engine", "torch", "--providers", "CPUExecutionProvider"),
            "Invalid value for '--providers': providers are those of the engine onnxruntime, not of torch;",
        ),
        (("--compiled",), "Invalid value for '--compiled': compiled is for the engine torch on a GPU; leave it out."),
    ],
    ids=["threads_on_gpu", "int8_in_torch", "tensorrt_on_cpu", "providers_in_torch", "compiled_on_cpu"],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_options_that_contradict_each_other(run, gpu, command, options, message) -> None:
    done, report = run(command, *options)
    assert (done.code, done.out, report, gpu) == (2, "", None, [])
    assert "Traceback" not in done.err
    (line,) = (line for line in done.err.splitlines() if "Invalid value" in line)
    assert message in line
